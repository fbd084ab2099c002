// Package pg connects to the two servers and moves COPY data in and out of
// them. It knows PostgreSQL's protocol, identifiers and errors, and nothing of
// TimescaleDB.
package pg

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// Side names the server a connection or an error belongs to.
type Side string

// The two sides of a backfill.
const (
	Source Side = "source"
	Target Side = "target"
)

// Conn is a connection to one side.
type Conn struct {
	*pgx.Conn
	Side Side
	tap  *tap
	addr string
}

// Options are what a tool says about its connections.
type Options struct {
	// Application is shown in pg_stat_activity.
	Application string
	// Log is called before each new attempt to connect; may be nil.
	Log func(format string, args ...any)
	// Locks is set for a session that holds locks and receives little data. The
	// server then also ends it when its answers are not acknowledged (settings.sql).
	// A session that receives much data must not be ended for that: its client may
	// just be suspended (^Z).
	Locks bool
}

//go:embed settings.sql
var settingsSQL string

// How long a server may stay unreachable before connecting gives up, and how
// long one attempt may take when the connection string does not say.
const (
	connectFor     = 15 * time.Second
	connectTimeout = 10 * time.Second
	firstWait      = 250 * time.Millisecond
)

// Connect opens a connection to side. The connection string is what libpq
// takes (URI or key=value, passfile, service file, sslmode, keepalives, all its
// other parameters: see libpqParams). The session gets the settings that make
// values, times and identifiers read the same on both sides (settings.sql). A
// server that is starting, out of connections or not listening yet is tried again
// for some seconds.
//
// The error names the side and never contains the password.
func Connect(ctx context.Context, side Side, connString string, o Options) (*Conn, error) {
	cfg, err := parse(connString)
	if err != nil {
		return nil, &Error{Side: side, Object: "connection string", Err: parseError(err)}
	}
	// Of a URI, the host is what follows the first @, here the end of a password that
	// has an @ itself. No message may show it.
	if strings.Contains(cfg.Host, "@") {
		return nil, &Error{Side: side, Object: "connection string", Err: errors.New("there is an @ in the host"),
			Hint: "write %40 for an @ in a user name or password"}
	}
	alive, err := tcpParams(side, cfg.RuntimeParams)
	if err == nil {
		err = libpqParams(cfg)
	}
	if err != nil {
		return nil, &Error{Side: side, Object: "connection string", Err: err}
	}
	c := &Conn{Side: side, addr: address(cfg)}
	if o.Application != "" {
		cfg.RuntimeParams["application_name"] = o.Application
	}
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = connectTimeout
	}
	cfg.DialFunc = alive.dialer(cfg.ConnectTimeout).DialContext
	cfg.BuildFrontend = func(r io.Reader, w io.Writer) *pgproto3.Frontend {
		c.tap = newTap(r)
		return pgproto3.NewFrontend(c.tap, w)
	}
	if err := c.dial(ctx, cfg, o); err != nil {
		return nil, err
	}
	if _, err := c.Exec(ctx, alive.settings(settingsSQL, o.Locks)); err != nil {
		c.Close()
		return nil, c.Wrap(err, "session settings")
	}
	if side == Source {
		// bf never writes to a source: have the server enforce it.
		if _, err := c.Exec(ctx, "set default_transaction_read_only = on"); err != nil {
			c.Close()
			return nil, c.Wrap(err, "session settings")
		}
	}
	return c, nil
}

// dial connects, and tries again for a while where that may help.
func (c *Conn) dial(ctx context.Context, cfg *pgx.ConnConfig, o Options) (err error) {
	for wait, deadline := firstWait, time.Now().Add(connectFor); ; wait *= 2 {
		c.Conn, err = pgx.ConnectConfig(ctx, cfg)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil || !transient(err) || time.Now().Add(wait).After(deadline) {
			return &Error{Side: c.Side, Object: "connect to " + c.addr, Err: connectError(err), Hint: connectHint(err)}
		}
		if o.Log != nil {
			hint := ""
			if h := connectHint(err); h != "" && wait == firstWait {
				hint = " (" + h + ")" // at once: what helps may not be waiting
			}
			o.Log("%s: connect to %s: %v%s; trying again in %v", c.Side, c.addr, connectError(err), hint, wait)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
}

// Close ends the connection, with a message to the server if that still answers. Where it
// was given up in the middle of a statement, pgx is closing it and asks the server to
// cancel the statement: Close waits for that. Else the server would go on, or wait for a
// lock and hold others, until it looks whether its client is there.
func (c *Conn) Close() {
	if c == nil || c.Conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	_ = c.Conn.Close(ctx)
	select {
	case <-c.PgConn().CleanupDone():
	case <-ctx.Done():
	}
}

// Lost reports whether the connection is closed or broken: the lane has to end.
func (c *Conn) Lost() bool { return c.Conn.IsClosed() }

// Major is the server's major version.
func (c *Conn) Major() (n int) {
	_, _ = fmt.Sscanf(c.PgConn().ParameterStatus("server_version"), "%d", &n) // 17.2, 18beta1
	return n
}

// InTx reports whether a transaction is open, or was aborted and not ended: a
// rollback where there is none leaves a warning in the server's log.
func (c *Conn) InTx() bool { return !c.Lost() && c.PgConn().TxStatus() != 'I' }

// Rollback ends the transaction, where one is open; also when ctx has ended.
func (c *Conn) Rollback(ctx context.Context) {
	if c.InTx() {
		_, _ = c.Exec(context.WithoutCancel(ctx), "rollback")
	}
}

// Ident quotes an identifier, schema-qualified when two parts are given.
func Ident(parts ...string) string { return pgx.Identifier(parts).Sanitize() }

// Idents quotes a list of column names, separated by commas.
func Idents(names []string) string {
	q := make([]string, len(names))
	for i, n := range names {
		q[i] = Ident(n)
	}
	return strings.Join(q, ", ")
}

// CutOutside cuts at the first separator that is in no quoted identifier.
func CutOutside(s string, sep rune) (before, after string, found bool) {
	quoted := false
	for i, r := range s {
		switch {
		case r == '"':
			quoted = !quoted
		case r == sep && !quoted:
			return s[:i], s[i+1:], true
		}
	}
	return s, "", false
}

// Literal quotes a string constant for the places of SQL that take no
// parameters. standard_conforming_strings is on (settings.sql).
func Literal(s string) string {
	return "'" + strings.ReplaceAll(strings.ReplaceAll(s, "\x00", ""), "'", "''") + "'"
}

// NameMatches is the SQL condition that a name matches a regular expression,
// case-insensitively, in one of its two spellings: as people write it, and as
// SQL quotes it. The arguments are SQL.
func NameMatches(schema, name, pattern string) string {
	return fmt.Sprintf("(%[1]s || '.' || %[2]s ~* %[3]s or format('%%I.%%I', %[1]s, %[2]s) ~* %[3]s)", schema,
		name, pattern)
}

func address(cfg *pgx.ConnConfig) string {
	if strings.HasPrefix(cfg.Host, "/") {
		return fmt.Sprintf("%s (port %d, database %q, user %q)", cfg.Host, cfg.Port, cfg.Database, cfg.User)
	}
	return fmt.Sprintf("%s (database %q, user %q)", net.JoinHostPort(cfg.Host, fmt.Sprint(cfg.Port)),
		cfg.Database, cfg.User)
}

// transient reports whether connecting may work a moment later.
func transient(err error) bool {
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) {
		switch pgErr.Code {
		case CannotConnectNow, TooManyConnections, AdminShutdown, CrashShutdown:
			return true
		}
		return false
	}
	if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.ENOENT) ||
		errors.Is(err, io.ErrUnexpectedEOF) {
		return true
	}
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}
