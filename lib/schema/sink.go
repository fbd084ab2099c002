package schema

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"bf/lib/pg"

	"github.com/jackc/pgx/v5/pgconn"
)

// sink takes the statements: a file for people, or the target.
type sink interface {
	// about says what the next statements make: for people, and for errors.
	about(label, comment string) error
	do(ctx context.Context, sql string) error
	// rows has a COPY take rows in text format.
	rows(ctx context.Context, copy string, r io.Reader) error
}

// printer writes a script for psql.
type printer struct{ w io.Writer }

func (p printer) about(_, comment string) error {
	// A name may hold a line break: what follows it must not be read as SQL.
	_, err := fmt.Fprintf(p.w, "\n-- %s\n", strings.NewReplacer("\n", "\n-- ", "\r", " ").Replace(comment))
	return err
}

func (p printer) do(_ context.Context, sql string) error {
	_, err := fmt.Fprintln(p.w, sql)
	return err
}

func (p printer) rows(_ context.Context, sql string, r io.Reader) error {
	if _, err := fmt.Fprintln(p.w, sql); err != nil {
		return err
	}
	if _, err := io.Copy(p.w, r); err != nil {
		return err
	}
	_, err := fmt.Fprintln(p.w, `\.`)
	return err
}

// runner runs it on the target.
type runner struct {
	conn   *pg.Conn
	label  string
	resume []int32 // the jobs that are scheduled on the source, by their numbers on the target
}

func (r *runner) about(label, _ string) error {
	r.label = label
	return nil
}

func (r *runner) do(ctx context.Context, sql string) error {
	results, err := r.conn.PgConn().Exec(ctx, sql).ReadAll()
	if err != nil {
		return r.wrap(err)
	}
	for _, res := range results {
		if len(res.FieldDescriptions) != 1 || res.FieldDescriptions[0].Name != toResume {
			continue
		}
		for _, row := range res.Rows {
			id, err := strconv.ParseInt(string(row[0]), 10, 32)
			if err != nil {
				return r.wrap(err)
			}
			r.resume = append(r.resume, int32(id))
		}
	}
	return nil
}

func (r *runner) rows(ctx context.Context, sql string, rows io.Reader) error {
	_, err := r.conn.PgConn().CopyFrom(ctx, rows, sql)
	return r.wrap(err)
}

func (r *runner) wrap(err error) error {
	var e *Error
	if err == nil || errors.As(err, &e) {
		return err
	}
	err = r.conn.Wrap(err, "%s", r.label)
	var p *pg.Error
	var server *pgconn.PgError
	if errors.As(err, &p) && errors.As(err, &server) {
		p.Hint = server.Hint
		if server.Code == pg.InsufficientRight {
			p.Hint = "the role of the target needs that right; " +
				"--no-owner makes all belong to it, --no-privileges grants nothing"
		}
	}
	return err
}

// Statements of a dump that are not run: the settings of its head, which the
// session has; in a transaction, those around large objects.
var (
	ofHead = regexp.MustCompile(`^(SELECT pg_catalog\.set_config\('search_path'|SET (statement_timeout|lock_timeout|` +
		`idle_in_transaction_session_timeout|transaction_timeout|client_encoding|standard_conforming_strings|` +
		`check_function_bodies|xmloption|client_min_messages|row_security) = )`)
	ofTransaction = regexp.MustCompile(`^(BEGIN|COMMIT);`)
)

// pipe hands the statements of a dump to the sink, which is in a transaction or
// not.
func pipe(ctx context.Context, r io.Reader, s sink, inTx bool) error {
	script := pg.NewScript(r)
	for {
		st, err := script.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if ofHead.MatchString(st.SQL) || inTx && ofTransaction.MatchString(st.SQL) {
			continue
		}
		if m := tocData.FindStringSubmatch(st.Comment); m != nil {
			e := entry{name: m[1], kind: m[2], schema: m[3]}
			if err := s.about(e.label(), fmt.Sprintf("Data for Name: %s; Type: %s; Schema: %s", m[1], m[2],
				m[3])); err != nil {
				return err
			}
		}
		if !st.CopyIn() {
			if err := s.do(ctx, st.SQL); err != nil {
				return err
			}
			continue
		}
		// An error of the script explains better than the server's why the COPY failed.
		rows := &noted{r: script.Rows()}
		err = s.rows(ctx, st.SQL, rows)
		switch {
		case rows.err != nil && rows.err != io.EOF:
			return rows.err
		case err != nil:
			return err
		}
	}
}

var tocData = regexp.MustCompile(`(?m)^-- (?:Data for )?Name: (.*); Type: ([A-Z ]+); Schema: (.*); Owner: `)

// noted remembers the error of a reader.
type noted struct {
	r   io.Reader
	err error
}

func (n *noted) Read(p []byte) (int, error) {
	m, err := n.r.Read(p)
	if err != nil {
		n.err = err
	}
	return m, err
}
