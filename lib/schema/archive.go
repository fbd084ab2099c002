package schema

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"bf/lib/pg"
)

// programs are PostgreSQL's own for dumps, of one version.
type programs struct {
	dir   string
	major int
}

// findPrograms looks for pg_dump on PATH and where packages put it. It must not be older
// than the source. The target's version is best, then the newest below it: what those
// write the target understands. Newer ones come last.
func findPrograms(source, target int) (best programs, err error) {
	dirs := filepath.SplitList(os.Getenv("PATH"))
	for _, pattern := range []string{"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/usr/local/pgsql/bin",
		"/opt/homebrew/opt/*/bin"} {
		found, _ := filepath.Glob(pattern)
		dirs = append(dirs, found...)
	}
	rank := func(major int) int {
		if major > target {
			return target - major
		}
		return major
	}
	for _, dir := range dirs {
		out, err := exec.Command(filepath.Join(dir, "pg_dump"), "--version").Output()
		m := regexp.MustCompile(`\) (\d+)`).FindSubmatch(out)
		if err != nil || m == nil {
			continue
		}
		if _, err := exec.LookPath(filepath.Join(dir, "pg_restore")); err != nil {
			continue
		}
		major, _ := strconv.Atoi(string(m[1]))
		if major >= source && (best.dir == "" || rank(major) > rank(best.major)) {
			best = programs{dir, major}
		}
	}
	if best.dir == "" {
		return best, &Error{fmt.Sprintf("no pg_dump of PostgreSQL %d or newer", source),
			fmt.Sprintf("install the client programs of PostgreSQL %d, the newer of both sides, and put them in PATH",
				max(source, target))}
	}
	return best, nil
}

// command prepares one of the programs. A password goes through the
// environment: arguments show in the process list.
func (p programs) command(ctx context.Context, name, connString string, args ...string) *exec.Cmd {
	dsn, password := pg.SplitPassword(connString)
	if connString != "" {
		args = append(args, "--dbname="+dsn)
	}
	cmd := exec.CommandContext(ctx, filepath.Join(p.dir, name), args...)
	// On SIGINT it cancels its statement on the server, too.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 5 * time.Second
	cmd.Env = append(os.Environ(), "PGAPPNAME="+Name,
		"PGOPTIONS="+os.Getenv("PGOPTIONS")+" -c standard_conforming_strings=on -c quote_all_identifiers=off"+
			" -c client_min_messages=warning")
	if password != "" {
		cmd.Env = append(cmd.Env, "PGPASSWORD="+password)
	}
	return cmd
}

// stream runs a program and hands what it writes to f.
func stream(cmd *exec.Cmd, f func(io.Reader) error) error {
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("%s: %w", filepath.Base(cmd.Path), err)
	}
	ferr := f(out)
	cut := errors.Is(ferr, io.ErrUnexpectedEOF) // the program's own message says why
	if ferr != nil && !cut {
		out.Close()
		cmd.Process.Signal(os.Interrupt)
	}
	werr := cmd.Wait()
	if werr != nil && (ferr == nil || cut) {
		return &Error{"source: " + filepath.Base(cmd.Path) + ": " + lastWords(stderr.String(), werr), ""}
	}
	return ferr
}

// lastWords is what a program said when it failed.
func lastWords(stderr string, err error) string {
	var said []string
	for _, l := range strings.Split(strings.TrimSpace(stderr), "\n") {
		_, l, ok := strings.Cut(l, ": error: ")
		if ok {
			said = append(said, l)
		}
	}
	if len(said) == 0 {
		return err.Error()
	}
	return pg.Redact(strings.Join(said, "; "))
}

// object names an object of the source: the OIDs of its catalog and its own.
type object struct{ class, oid uint32 }

// The catalogs that objects are looked for in.
const (
	pgClass     = 1259
	pgRewrite   = 2618
	pgExtension = 3079
)

// entry is an object of a dump with the statements that make it.
type entry struct {
	id         int // in the dump
	object     object
	needs      []int // ids of entries, some of which the dump may not have
	name       string
	kind       string // as pg_dump calls it: TABLE, FK CONSTRAINT
	schema     string
	owner      string
	post       bool     // it is of the section post-data
	settings   []string // default_tablespace, default_table_access_method
	statements []string
}

// label is how messages name it.
func (e *entry) label() string {
	name := e.name
	if e.schema != "-" && e.schema != "" {
		name = e.schema + "." + name
	}
	if e.kind == "TABLE DATA" {
		return "rows of " + name
	}
	return strings.ToLower(e.kind) + " " + name
}

// comment is how a script names it: as pg_dump does.
func (e *entry) comment() string {
	return fmt.Sprintf("Name: %s; Type: %s; Schema: %s; Owner: %s", e.name, e.kind, e.schema, e.owner)
}

// dumpSchema has pg_dump describe the source, without data, and returns the
// entries in the order of the dump, which is one in which they can be made.
func (c *clone) dumpSchema(ctx context.Context) ([]*entry, error) {
	dir, err := os.MkdirTemp("", Name+"-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "schema.dump")
	args := append([]string{"--schema-only", "--format=custom", "--file=" + file}, c.dumpArgs("--exclude-table=")...)
	if err := stream(c.programs.command(ctx, "pg_dump", c.Source, args...), discard); err != nil {
		return nil, err
	}
	var all []*entry
	for _, section := range []string{"pre-data", "post-data"} {
		args := []string{"--verbose", "--section=" + section, "--file=-", file}
		if c.NoOwner {
			args = append(args, "--no-owner")
		}
		if c.NoPrivileges {
			args = append(args, "--no-privileges")
		}
		err := stream(c.programs.command(ctx, "pg_restore", "", args...), func(r io.Reader) error {
			es, err := entries(r)
			for _, e := range es {
				e.post = section == "post-data"
			}
			all = append(all, es...)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

func discard(r io.Reader) error {
	_, err := io.Copy(io.Discard, r)
	return err
}

// dumpArgs are what a dump leaves out: TimescaleDB's own schemas, its relations in other
// schemas, and the state of a backfill.
func (c *clone) dumpArgs(exclude string) []string {
	args := []string{"--no-subscriptions", "--no-publications", "--exclude-schema=__backfill",
		"--exclude-schema=_timescaledb_*", "--snapshot=" + c.snapshot}
	for _, n := range c.internals {
		args = append(args, exclude+pg.Ident(n.Schema, n.Name))
	}
	return args
}

var (
	tocEntry     = regexp.MustCompile(`(?m)^-- TOC entry (\d+) \(class (\d+) OID (\d+)\)$`)
	tocNeeds     = regexp.MustCompile(`(?m)^-- Dependencies: ([\d ]+)$`)
	tocName      = regexp.MustCompile(`(?m)^-- Name: (.*); Type: ([A-Z ]+); Schema: (.*); Owner: (.*)$`)
	settingNames = regexp.MustCompile(`^SET default_(tablespace|table_access_method) = `)
)

// entries reads what pg_restore --verbose writes. Settings stand before the
// entry that needs them first, and hold until the next.
func entries(r io.Reader) (all []*entry, err error) {
	var e *entry
	settings := map[string]string{}
	script := pg.NewScript(r)
	for {
		st, err := script.Next()
		if err == io.EOF {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		if m := tocEntry.FindAllStringSubmatch(st.Comment, -1); m != nil {
			e = &entry{settings: []string{settings["tablespace"], settings["table_access_method"]}}
			if err := e.read(st.Comment, m[len(m)-1]); err != nil {
				return nil, err
			}
			all = append(all, e)
		}
		if m := settingNames.FindStringSubmatch(st.SQL); m != nil {
			settings[m[1]] = st.SQL
		} else if e != nil { // else the head of the script
			e.statements = append(e.statements, st.SQL)
		}
	}
}

// read takes the entry's description from the comment above it.
func (e *entry) read(comment string, numbers []string) error {
	for i, dest := range []any{&e.id, &e.object.class, &e.object.oid} {
		if _, err := fmt.Sscan(numbers[i+1], dest); err != nil {
			return err
		}
	}
	if m := tocNeeds.FindStringSubmatch(comment); m != nil {
		for _, f := range strings.Fields(m[1]) {
			id, err := strconv.Atoi(f)
			if err != nil {
				return err
			}
			e.needs = append(e.needs, id)
		}
	}
	m := tocName.FindStringSubmatch(comment)
	if m == nil {
		return fmt.Errorf("pg_restore has changed its comments: %.200q", comment)
	}
	e.name, e.kind, e.schema, e.owner = m[1], m[2], m[3], m[4]
	return nil
}
