package chaos

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bf/lib/stream"
	"bf/lib/task"
	"bf/lib/testdb"
)

// victim is a pair of databases, staged, whose every table is watched.
type victim struct {
	source, target *testdb.DB
	records        []*task.Task
}

func newVictim(t *testing.T, p testdb.Pair) *victim {
	testdb.Path(t)
	v := &victim{source: testdb.New(t, p.Source, "source"), target: testdb.New(t, p.Target, "target")}
	for _, d := range []*testdb.DB{v.source, v.target} {
		d.Exec(t, `create table m (time timestamptz not null, v int);
            select create_hypertable('m', 'time', chunk_time_interval => interval '1 day');
			create table other (time timestamptz not null, v int);
			select create_hypertable('other', 'time', chunk_time_interval => interval '1 day');
			create table secret (id int, text text); insert into secret values (1, 'secret');
			insert into other select t, 1 from generate_series('2024-01-01'::timestamptz, '2024-01-04', '1 day') t`)
	}
	v.source.Exec(t, "insert into m select t, 1 "+
		"from generate_series('2024-01-01'::timestamptz, '2024-01-04', '1 hour') t")
	if out, status := tool(t, "", "bf-stage", "--source", v.source.ConnString, "--target", v.target.ConnString,
		"--until", "2024-02-01", "--filter", "public.m$"); status != 0 {
		t.Fatal(out)
	}
	out, _ := tool(t, "", "bf-chunks", "--target", v.target.ConnString)
	for line := range strings.Lines(out) {
		r, err := task.Parse([]byte(line))
		if err != nil {
			t.Fatal(err)
		}
		v.records = append(v.records, r)
	}
	return v
}

// state is all there is on the target.
func (v *victim) state(t testing.TB) string {
	return fmt.Sprint(v.target.Rows(t, "select relname, relkind from pg_class "+
		"where relnamespace in ('public'::regnamespace, '_timescaledb_internal'::regnamespace, "+
		"'__backfill'::regnamespace) order by 1"),
		v.target.Rows(t, "select * from m order by 1"), v.target.Rows(t, "select * from other order by 1"),
		v.target.Rows(t, "select * from secret"),
		v.target.Rows(t, "select * from __backfill.task order by 1"),
		v.target.Rows(t, "select rolname from pg_roles order by 1"))
}

// recordFields put a string into a field of a record, or name what was not staged.
var recordFields = map[string]func(r *task.Task, s string){
	"chunk.schema":      func(r *task.Task, s string) { r.Chunk.Schema = s },
	"chunk.name":        func(r *task.Task, s string) { r.Chunk.Name = s },
	"hypertable.schema": func(r *task.Task, s string) { r.Hypertable.Schema = s },
	"hypertable.name":   func(r *task.Task, s string) { r.Hypertable.Name = s },
	"view":              func(r *task.Task, s string) { r.View = &task.Name{Schema: "public", Name: s} },
	"column":            func(r *task.Task, s string) { r.Range.Column, r.Slices[0].Column = s, s },
	"range.from":        func(r *task.Task, s string) { r.Range.From = s },
	"range.until":       func(r *task.Task, s string) { r.Range.Until, r.Range.Partial = s, true },
	"slice.from":        func(r *task.Task, s string) { r.Slices[0].From = s },
	"slice.until":       func(r *task.Task, s string) { r.Slices[0].Until = s },
	"snapshot":          func(r *task.Task, s string) { r.Snapshot = s },
	"origin":            func(r *task.Task, s string) { r.Origin = s },
	"a wider range":     func(r *task.Task, _ string) { r.Range.From, r.Range.Partial = "0", true },
	"another task":      func(r *task.Task, _ string) { r.Task++ },
	"no task":           func(r *task.Task, _ string) { r.Task = 99 },
	"another table":     func(r *task.Task, _ string) { r.Hypertable.Name = "other" },
}

// injections are strings that touch the witness or drop a table where they are pasted
// into SQL or a command.
func injections(witness string) []string {
	return []string{
		`x"; drop table secret; --`, `x'; drop table secret; --`, `m"); drop table secret; --`, "secret", "other",
		"pg_authid", "../../../../etc/passwd",
		"$(touch " + witness + ")", "`touch " + witness + "`", "\\x", "x\ny", "%s%n", strings.Repeat("x", 500),
		`") to program 'touch ` + witness + `' --`,
	}
}

// newWitness is the path of a file that is not there, and that any user can create:
// whoever executes what he should not may be the server.
func newWitness(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "bf-test-witness")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "w")
}

// record is a copy of the first record.
func (v *victim) record(t *testing.T) *task.Task {
	t.Helper()
	b, _ := json.Marshal(v.records[0])
	r, err := task.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// streamOf is a whole stream of one row for the task; empty where the writer refuses
// the record already.
func streamOf(r *task.Task, columns []stream.Column) string {
	var b bytes.Buffer
	w := stream.NewWriter(&b, stream.Compression{})
	h := &stream.Header{Task: *r, State: stream.StateChunk,
		Parts: []stream.Part{{Relation: stream.Rows, Format: stream.Text, Columns: columns}}}
	if err := w.Begin(h); err != nil {
		return ""
	}
	io.WriteString(w, "2024-01-01 00:00:00+00\t666\n")
	w.EndPart(1)
	w.End()
	w.Close(false)
	return b.String()
}

// TestHostileRecords: records and streams with SQL in every field, or that name
// what was not staged, change nothing on the target.
func TestHostileRecords(t *testing.T) {
	in := testdb.Installs(t)[0]
	v := newVictim(t, testdb.Pair{Source: in, Target: in})
	before := v.state(t)
	witness := newWitness(t)
	evil := injections(witness)
	columns := []stream.Column{{Name: "time", Type: "timestamp with time zone"}, {Name: "v", Type: "integer"}}
	tried := 0
	refused := func(what string, out string, status int) {
		t.Helper()
		tried++
		if status != 1 {
			t.Errorf("%s: status %d\n%s", what, status, out)
		}
		if after := v.state(t); after != before {
			t.Fatalf("%s changed the target:\n%s\nbefore:\n%s", what, after, before)
		}
	}
	for field, set := range recordFields {
		for i, s := range evil {
			if testing.Short() && i > 1 || i > 5 && field != "chunk.name" {
				break // each costs three processes
			}
			r := v.record(t)
			set(r, s)
			b, _ := json.Marshal(r)
			out, status := tool(t, string(b)+"\n", "sh", "-c", `bf-dump --source "$1" | bf-load --target "$2"`, "",
				v.source.ConnString, v.target.ConnString)
			if field == "origin" || field == "snapshot" {
				// They say how to read the source: nothing of the target.
				if status == 0 {
					t.Errorf("%s %q: status 0\n%s", field, s, out)
				}
				v.target.Exec(t, "update __backfill.task set failed = null, attempts = 0, copy_message = null")
				before = v.state(t)
				continue
			}
			refused(field+" "+s, out, status)
			if in := streamOf(r, columns); in != "" {
				out, status = tool(t, in, "bf-load", "--target", v.target.ConnString)
				refused("stream with "+field+" "+s, out, status)
			}
		}
	}
	for _, s := range evil {
		for _, c := range [][]stream.Column{
			{{Name: s, Type: "timestamp with time zone"}, columns[1]},
			{{Name: "time", Type: s}, columns[1]},
			{columns[0], columns[0]},
			{{Name: `time") from program 'touch ` + witness + `' --`, Type: columns[0].Type}, columns[1]},
		} {
			out, status := tool(t, streamOf(v.record(t), c), "bf-load", "--target", v.target.ConnString)
			v.target.Exec(t, "update __backfill.task set failed = null, attempts = 0, copy_message = null")
			before = v.state(t)
			if status != 1 || v.rows(t) != 0 {
				t.Errorf("columns %v: status %d\n%s", c, status, out)
			}
			tried++
		}
		for _, args := range [][]string{{"bf-chunks", "--target", v.target.ConnString, "--filter", s},
			{"bf-stage", "--source", v.source.ConnString, "--until", s},
			{"bf-stage", "--source", v.source.ConnString, "--until", "2024-01-01", "--filter", s}} {
			tool(t, "", args...)
			if after := v.state(t); after != before {
				t.Fatalf("%q changed the target", args)
			}
			tried++
		}
	}
	if _, err := os.Stat(witness); err == nil {
		t.Error("something was executed")
	}
	t.Logf("%d hostile inputs", tried)
	// What was staged still loads.
	out, status := tool(t, "", "sh", "-c", `bf-chunks --target "$2" | bf-dump --source "$1" | bf-load --target "$2"`,
		"", v.source.ConnString, v.target.ConnString)
	if status != 0 || v.rows(t) != 73 {
		t.Errorf("status %d, %d rows\n%s", status, v.rows(t), out)
	}
}

func (v *victim) rows(t testing.TB) (n int) {
	v.target.Query1(t, &n, "select count(*) from m")
	return n
}

// TestForeignSchema: whoever may create a schema may not make us run their code.
func TestForeignSchema(t *testing.T) {
	for _, in := range few(testdb.Installs(t)) {
		v := newVictim(t, testdb.Pair{Source: in, Target: in})
		v.target.Exec(t, `create table public.caught (who text, by text);
			create function public.trap() returns int language plpgsql as $$ begin insert into public.caught
			values (current_user, 'function'); return 1; end $$;
			create function public.trigger_trap() returns trigger language plpgsql as $$ begin insert into public.caught
			values (current_user, 'trigger'); return new; end $$;
			grant all on public.caught to public`)
		var role string
		v.target.Query1(t, &role, "select 'mallory_' || current_database()")
		v.target.Exec(t, "create role "+role+" login; grant create on database "+v.target.Name+" to "+role)
		defer v.target.Exec(t, "drop owned by "+role+"; drop role "+role)
		run := func(what string) {
			t.Helper()
			record, _ := json.Marshal(v.records[0])
			for _, c := range []string{`bf-chunks --target "$2"`, `bf-chunks --claim --target "$2"`,
				`bf-stage --source "$1" --target "$2" --until 2024-02-01`,
				`bf-dump --source "$1" "$3" | bf-load --target "$2"`, `bf-clean --force --target "$2"`} {
				out, status := tool(t, "", "sh", "-c", c, "", v.source.ConnString, v.target.ConnString, string(record))
				if status != 1 || !strings.Contains(out, "not trusted") {
					t.Errorf("%s: %s: status %d\n%s", what, c, status, out)
				}
			}
			if caught := v.target.Rows(t, "select distinct * from public.caught"); len(caught) > 0 {
				t.Errorf("%s: %v", what, caught)
			}
		}
		save := "alter schema __backfill rename to saved; "
		back := "drop schema __backfill cascade; alter schema saved rename to __backfill"
		theirs := "set role " + role + "; create schema __backfill; create table __backfill.version as " +
			"select 1 as version; " +
			"create table __backfill.task (priority bigint generated by default as identity primary key, " +
			"worked tstzrange, failed timestamptz default (public.trap() + null)::text::timestamptz, " +
			"chunk_schema name check (public.trap() = 1), x int generated always as (1) stored); reset role"
		v.target.Exec(t, save+theirs)
		run("somebody else's schema")
		v.target.Exec(t, back)
		v.target.Exec(t, save+"set role "+role+
			"; create schema __backfill; create view __backfill.version as select public.trap() as version; "+
			"create view __backfill.task as select public.trap() as priority; reset role")
		run("views")
		v.target.Exec(t, back)
		for what, sql := range map[string]string{
			"table of somebody else": "alter table __backfill.task owner to " + role,
			"trigger": "grant trigger on __backfill.task to " + role +
				"; grant usage on schema __backfill to " + role + "; set role " + role +
				"; create trigger trap before update on __backfill.task " +
				"for each row execute function public.trigger_trap(); reset role",
			"rule":   "create rule trap as on update to __backfill.task do also select public.trap()",
			"policy": "alter table __backfill.task enable row level security",
			"child":  "create table public.child () inherits (__backfill.task)",
		} {
			v.target.Exec(t, "create schema keep; create table keep.task as table __backfill.task; "+sql)
			run(what)
			v.target.Exec(t, `drop schema __backfill cascade; drop table if exists public.child`)
			if out, status := tool(t, "", "bf-stage", "--source", v.source.ConnString, "--target", v.target.ConnString,
				"--until", "2024-02-01", "--filter", "public.m$"); status != 0 {
				t.Fatal(out)
			}
			v.target.Exec(t, "drop schema keep cascade")
		}
		// Functions in front of the system's own are not met either.
		v.target.Exec(t, `create schema evil; alter database `+v.target.Name+
			` set search_path = evil, public, pg_catalog;
			create function evil.count(bigint) returns bigint language sql as 'select public.trap()::bigint';
			create function evil.to_regclass(text) returns regclass language sql as 'select public.trap()::regclass';
			create function evil.pg_try_advisory_lock(int,
			int) returns boolean language sql as 'select public.trap() = 1';
			create function evil.to_regnamespace(text) returns regnamespace language sql as
			'select public.trap()::regnamespace';
			create function evil.clock_timestamp() returns timestamptz language sql as
			'select public.trap()::text::timestamptz'`)
		out, status := tool(t, "", "sh", "-c",
			`bf-chunks --claim --target "$2" | bf-dump --source "$1" | bf-load --target "$2"`, "", v.source.ConnString,
			v.target.ConnString)
		if status != 0 || v.rows(t) != 73 {
			t.Errorf("search_path: status %d\n%s", status, out)
		}
		if caught := v.target.Rows(t, "select distinct * from public.caught"); len(caught) > 0 {
			t.Errorf("search_path: %v", caught)
		}
	}
}
