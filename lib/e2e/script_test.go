package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"bf/lib/testdb"

	"github.com/jackc/pgx/v5"
	"github.com/rogpeppe/go-internal/testscript"
)

// TestScripts runs testdata/script: what the commands say and do, each on two
// fresh databases, whose connection strings are in SOURCE and TARGET. Besides
// testscript's own commands there are
//
//	sql source|target STATEMENT      run SQL
//	bad STATUS [<FILE] TOOL ARG...   run a tool that must refuse, see bad
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/script/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no scripts", err)
	}
	v := testdb.Installs(t)[0]
	path := testdb.Bin(t) + string(os.PathListSeparator) + os.Getenv("PATH")
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".txt"), func(t *testing.T) {
			p := newPair(t, testdb.Pair{Source: v, Target: v})
			sides := map[string]string{"source": p.source, "target": p.target}
			testscript.Run(t, testscript.Params{
				Files: []string{f},
				Setup: func(e *testscript.Env) error {
					e.Setenv("PATH", path)
					e.Setenv("SOURCE", p.source)
					e.Setenv("TARGET", p.target)
					return nil
				},
				Cmds: map[string]func(*testscript.TestScript, bool, []string){
					"sql": func(ts *testscript.TestScript, neg bool, args []string) {
						if neg || len(args) != 2 {
							ts.Fatalf("usage: sql source|target STATEMENT")
						}
						ts.Check(execute(sides[args[0]], args[1]))
					},
					"bad": func(ts *testscript.TestScript, neg bool, args []string) { bad(ts, p, args) },
				},
			})
		})
	}
}

func execute(uri, sql string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, uri)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.PgConn().Exec(ctx, sql).ReadAll()
	return err
}

// secret is in every password of these tests.
const secret = "s3cret"

// bad runs a tool on bad input and checks what is promised of it: the exit
// status, no data on stdout (results of failed tasks apart), one line of error,
// with one line of hint at most, no stack trace, no password, and nothing
// written.
func bad(ts *testscript.TestScript, p *pair, args []string) {
	status, args := args[0], args[1:]
	var stdin []byte
	if name, ok := strings.CutPrefix(args[0], "<"); ok {
		stdin, args = []byte(ts.ReadFile(name)), args[1:]
	}
	before, err := state(p.target)
	ts.Check(err)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	path, err := exec.LookPath(filepath.Join(strings.Split(ts.Getenv("PATH"), string(os.PathListSeparator))[0],
		args[0]))
	ts.Check(err)
	cmd := exec.CommandContext(ctx, path, args[1:]...)
	cmd.Dir = ts.Getenv("WORK")
	cmd.Env = append(environ(), "HOME="+cmd.Dir)
	cmd.Stdin = bytes.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err = cmd.Run()
	if cmd.ProcessState == nil {
		ts.Fatalf("%v", err)
	}
	fmt.Fprint(ts.Stdout(), stdout.String())
	fmt.Fprint(ts.Stderr(), stderr.String())
	if got := fmt.Sprint(cmd.ProcessState.ExitCode()); got != status {
		ts.Fatalf("exit status %s, want %s\n%s", got, status, stderr.String())
	}
	if why := wrong(args[0], stdout.String(), stderr.String()); why != "" {
		ts.Fatalf("%s\nstdout: %s\nstderr: %s", why, stdout.String(), stderr.String())
	}
	after, err := state(p.target)
	ts.Check(err)
	if before != after {
		ts.Fatalf("something was written: before\n%s\nafter\n%s", before, after)
	}
}

// wrong tells what is wrong with the output of a tool that refused.
func wrong(tool, stdout, stderr string) string {
	for _, l := range lines(stdout) {
		if !strings.Contains(l, `"status":"failed"`) {
			return "there is output"
		}
	}
	ls := lines(stderr)
	switch {
	case len(ls) == 0 || len(ls) > 2 || len(ls) == 2 && !strings.HasPrefix(ls[1], "hint: "):
		return "not one line and a hint"
	case !strings.HasPrefix(ls[0], tool+": "):
		return "the line does not begin with the tool's name"
	case strings.Contains(stderr, "goroutine") || strings.Contains(stderr, ".go:"):
		return "a stack trace"
	case strings.Contains(stdout+stderr, secret):
		return "a password"
	}
	return ""
}

// state describes all that a tool could have written to the target.
func state(uri string) (s string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, uri)
	if err != nil {
		return "", err
	}
	defer conn.Close(ctx)
	queries := []string{"select coalesce(string_agg(oid::text, ','), '') from pg_class " +
		"where relnamespace in (select oid from pg_namespace " +
		"where nspname in ('public', '__backfill', '_timescaledb_internal'))"}
	var there bool
	if err := conn.QueryRow(ctx, "select to_regclass('__backfill.task') is not null").Scan(&there); err != nil {
		return "", err
	}
	if there {
		queries = append(queries, "select coalesce(string_agg(t::text, E'\n'), '') from __backfill.task t")
	}
	if err := conn.QueryRow(ctx, "select to_regclass('public.h') is not null").Scan(&there); err != nil {
		return "", err
	}
	if there {
		queries = append(queries, "select coalesce(string_agg(h::text, E'\n'), '') from public.h")
	}
	for _, q := range queries {
		var part string
		if err := conn.QueryRow(ctx, q).Scan(&part); err != nil {
			return "", err
		}
		s += part + "\n"
	}
	return s, nil
}
