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
	"time"

	"bf/lib/testdb"
	"bf/lib/tsdb"
)

// relations counts what a clone could have made.
func relations(t testing.TB, db *testdb.DB) (n int) {
	t.Helper()
	db.Query1(t, &n, "select count(*)::int from pg_class "+
		"where relnamespace <> all(array['pg_catalog', 'information_schema', 'pg_toast']::regnamespace[])")
	return n
}

// newestPair is the newest full edition with itself.
func newestPair(t testing.TB) testdb.Pair {
	t.Helper()
	in := testdb.Installs(t)[0]
	if !in.Full {
		t.Skip("needs the full edition of TimescaleDB, and only the Apache edition was found")
	}
	return testdb.Pair{Source: in, Target: in}
}

// TestCloneApache: what the Apache edition lacks is named before anything is
// made, and with --leave-out all the rest comes.
func TestCloneApache(t *testing.T) {
	v := newestPair(t)
	v.Target.Full = false
	p := newPair(t, v)
	native := testdb.New(t, v.Target, "target")
	withRoles(t, p.src, p.dst)
	furnish(t, p.src, v.Source.Version, true)
	furnish(t, native, v.Source.Version, false)
	if tsdb.AtLeast(v.Target.Version, "2.17") {
		native.Exec(t, `set timescaledb.enable_chunk_skipping = on;
        select enable_chunk_skipping('"Größe"."Mess Werte"', 'id')`)
	}
	p.src.Exec(t, part(t, "rows.sql"))
	before := relations(t, p.dst)
	names := []string{"continuous aggregate Größe.z Stunde: the target's Apache edition has none",
		"compression of Größe.Mess Werte", "job 10", `nor what depends on it: function "Größe"."0 Summe"()`,
		`nor what depends on it: view "Größe"."1 Sicht"`, `nor what depends on it: materialized view "Größe"."0 Stand"`}
	wantOutput(t, p.clone(t), 1, append(names, "nothing was made\nhint: --leave-out makes")...)
	if n := relations(t, p.dst); n != before {
		t.Errorf("%d relations were made", n-before)
	}
	wantOutput(t, p.clone(t, "--leave-out"), 0, append(names, "hypertables: 6, continuous aggregates: 0, jobs: 0;")...)
	diff(t, "catalogs", catalogs(t, native), catalogs(t, p.dst))
	diff(t, "pg_dump", dumped(t, native, v.Target.BinDir), dumped(t, p.dst, v.Target.BinDir))
	wantOutput(t, p.script(t, "backfill", "--until", "2024-05-03", "--filter", `Mess|J son|tage|Nackt`), 0)
	p.same(t, `select * from "Größe"."Mess Werte" where "Zeit" < '2024-05-03Z'`)
}

// TestCloneOldAggregates: an aggregate in the old format cannot be created, nor what is
// made of it.
func TestCloneOldAggregates(t *testing.T) {
	testdb.EachFull(t, func(t *testing.T, v testdb.Pair) {
		if tsdb.AtLeast(v.Source.Version, "2.23") {
			t.Skip("has none")
		}
		p := newPair(t, v)
		p.src.Exec(t, `create table h (t timestamptz not null, v int); select create_hypertable('h', 't')`)
		p.src.Exec(t, `create materialized view old with (timescaledb.continuous) as
            select time_bucket('1 day', t) as t, max(v) from h group by 1 with no data`)
		p.src.Exec(t, `create view of_old as select * from old; create view other as select * from h`)
		p.src.Exec(t, `select add_continuous_aggregate_policy('old', null, interval '1 day', interval '1 day')`)
		p.src.Exec(t, `update _timescaledb_catalog.continuous_agg set finalized = false`)
		wantOutput(t, p.clone(t, "--schema-only"), 1,
			"continuous aggregate public.old: "+
				"it is in the old format (finalized = false): call cagg_migrate('public.old') on the source",
			"nor what depends on it: view public.of_old", "1 thing cannot be created")
		wantOutput(t, p.clone(t, "--schema-only", "--leave-out"), 0, "continuous aggregates: 0, jobs: 0;")
		if got := fmt.Sprint(sorted(t, p.dst,
			"select relname from pg_class where relnamespace = 'public'::regnamespace and relkind in ('v', 'r') "+
				"and relname !~ '^pg_'")); got != "[h other]" {
			t.Errorf("made: %s", got)
		}
	})
}

// plainSQL is a schema of plain PostgreSQL.
const plainSQL = `create schema "Größe";
	create table "Größe".device (id int primary key, name text);
	insert into "Größe".device values (1, 'a'), (2, 'b');
	create table "Größe"."Mess Werte" ("Zeit" timestamptz not null, d int not null references "Größe".device,
	v float8 default 1 check (v > 0), id bigserial, primary key ("Zeit", d))
	    partition by range ("Zeit");
	create table "Größe".p1 partition of "Größe"."Mess Werte" for values from ('2024-01-01Z') to ('2024-02-01Z');
	create table "Größe".p2 partition of "Größe"."Mess Werte" for values
	from ('2024-02-01Z') to ('2024-03-01Z') partition by hash (d);
	create table "Größe".p2_0 partition of "Größe".p2 for values with (modulus 1, remainder 0);
	create index "By ON ONLY" on "Größe"."Mess Werte" (d, "Zeit" desc) where v > 1;
	create unique index on "Größe"."Mess Werte" (id, "Zeit", d);
	insert into "Größe"."Mess Werte" select timestamptz '2024-01-15Z' + n * interval '1 day', 1 + n % 2, 1 + n
	from generate_series(0, 40) n;
	create table events (id bigint primary key, at bigint not null, unique (at, id));
	create table "events 1" (check (at < 100)) inherits (events);
	create table "events 2" (check (at >= 100), primary key (id)) inherits (events);
	create index on "events 2" (at);
	create function route() returns trigger language plpgsql as
	$$begin insert into "events 1" select new.*; return null; end$$;
	create trigger route before insert on events for each row execute function route();
	create rule ruled as on insert to events where new.at > 1000 do instead insert into "events 2" select new.*;
	insert into "events 2" values (7, 700);
	create table seen (event bigint references events, words text);
	create table note ("Zeit" timestamptz, d int, foreign key ("Zeit", d) references "Größe"."Mess Werte");
	create view late as select m.*, name from "Größe"."Mess Werte" m join "Größe".device g on g.id = m.d
	where "Zeit" > '2024-02-01';
	comment on table "Größe"."Mess Werte" is 'partitioned';`

// TestClonePlain makes hypertables of tables of a plain PostgreSQL: partitioned
// in both ways, with keys that a hypertable cannot have.
func TestClonePlain(t *testing.T) {
	testdb.EachEdge(t, func(t *testing.T, v testdb.Pair) {
		p := newPair(t, v)
		p.src.Exec(t, "drop extension timescaledb cascade")
		p.src.Reconnect()
		p.src.Exec(t, plainSQL)
		before := relations(t, p.dst)
		wantOutput(t, p.clone(t), 1, "source: the database does not have the extension timescaledb\nhint: "+
			"name its tables that are to become hypertables: --hypertable TABLE=COLUMN")
		named := []string{"--hypertable", `"Größe"."Mess Werte"=Zeit,1 day`, "--hypertable", `events="at",1000`}
		obstacles := []string{"cannot be created: primary key events_pkey (id) of public.events: " +
			"it lacks the column at, which each unique key of a hypertable must have: add it to the key",
			"cannot be created: rule ruled of public.events: ",
			"nor what depends on it: constraint seen_event_fkey on table public.seen"}
		things := 2
		reference := `, foreign key ("Zeit", d) references "Größe"."Mess Werte"`
		if !tsdb.AtLeast(v.Target.Version, "2.16") {
			things, reference = 4, ""
			obstacles = append(obstacles[:2],
				"cannot be created: foreign key seen_event_fkey of public.seen to public.events: ",
				"cannot be created: foreign key note_Zeit_d_fkey of public.note to Größe.Mess Werte: "+
					"the target's TimescaleDB has no foreign keys to hypertables")
		}
		wantOutput(t, p.clone(t, named...), 1,
			append(obstacles, fmt.Sprint(things)+" things cannot be created on the target; nothing was made")...)
		if n := relations(t, p.dst); n != before {
			t.Errorf("%d relations were made", n-before)
		}
		wantOutput(t, p.clone(t, append(named, "--leave-out")...), 0,
			append(obstacles, "hypertables: 2,",
				"public.events: triggers before each inserted row: "+
					"route; drop on the target those that send rows to partitions")...)

		native := testdb.New(t, v.Target, "target")
		native.Exec(t, `create schema "Größe";
			create table "Größe".device (id int primary key, name text);
			create table "Größe"."Mess Werte" ("Zeit" timestamptz not null, d int not null references "Größe".device,
			v float8 default 1 check (v > 0), id bigserial, primary key ("Zeit", d));
			select create_hypertable('"Größe"."Mess Werte"', 'Zeit', chunk_time_interval => interval '1 day',
			create_default_indexes => false);
			create index "By ON ONLY" on "Größe"."Mess Werte" (d, "Zeit" desc) where v > 1;
			create unique index on "Größe"."Mess Werte" (id, "Zeit", d);
			create table events (id bigint not null, at bigint not null, unique (at, id));
			select create_hypertable('events', 'at', chunk_time_interval => 1000, create_default_indexes => false);
			create function route() returns trigger language plpgsql as
			$$begin insert into "events 1" select new.*; return null; end$$;
			create trigger route before insert on events for each row execute function route();
			create table seen (event bigint, words text);
			create table note ("Zeit" timestamptz, d int`+reference+`);
				create view late as select m.*, name from "Größe"."Mess Werte" m join "Größe".device g on g.id = m.d `+
			`where "Zeit" > '2024-02-01';
			comment on table "Größe"."Mess Werte" is 'partitioned';`)
		diff(t, "catalogs", catalogs(t, native), catalogs(t, p.dst))
		diff(t, "pg_dump", dumped(t, native, v.Target.BinDir), dumped(t, p.dst, v.Target.BinDir))
		p.same(t, `select * from "Größe".device`)
		if rows := sorted(t, p.dst, `select * from "Größe"."Mess Werte"`); len(rows) > 0 {
			t.Errorf("rows came: %q", rows)
		}
		p.dst.Exec(t, `insert into "Größe"."Mess Werte" values ('2024-01-15Z', 1, 2)`)
	})
}

// TestClonePlainBackfilled: from tables of a plain PostgreSQL to hypertables with their
// rows by bf-clone-schema and bf-backfill, nothing by hand, as a role that may read the
// source and do nothing else there.
func TestClonePlainBackfilled(t *testing.T) {
	testdb.EachEdge(t, func(t *testing.T, v testdb.Pair) {
		p := newPlain(t, v)
		p.src.Exec(t, `create schema "Größe";
			create table "Größe".device (id int primary key, name text);
			insert into "Größe".device select i, 'd' || i from generate_series(0, 6) i;
			create table "Größe"."Mess Werte" ("Zeit" timestamptz not null, d int not null references "Größe".device,
			v float8 check (v >= 0), id bigserial, primary key ("Zeit", d)) partition by range ("Zeit");
			create table "Größe".p1 partition of "Größe"."Mess Werte"
			for values from ('2024-01-01Z') to ('2024-02-01Z');
			create table "Größe".p2 partition of "Größe"."Mess Werte" default;
			insert into "Größe"."Mess Werte" select timestamptz '2024-01-15Z' + i * interval '1 hour', i % 7, i
			from generate_series(0, 999) i;
			create table history (itemid bigint not null, clock int not null, value numeric(16, 4),
			primary key (itemid, clock));
			insert into history select i % 9, 1704067200 + i * 60, i / 3.0 from generate_series(0, 9999) i;
			create table events (at timestamp not null, words text);
			create table events_1 (check (at < '2024-01-20')) inherits (events);
			create table events_2 (more int, check (at >= '2024-01-20')) inherits (events);
			insert into events_1 select timestamp '2024-01-01' + i * interval '1 hour', i
			from generate_series(0, 455) i;
			insert into events_2 select timestamp '2024-01-20' + i * interval '1 hour', i
			from generate_series(0, 299) i;
			insert into events values ('2024-01-20 00:00', 'parent');
			create view late as select "Zeit", name from "Größe"."Mess Werte" join "Größe".device g on g.id = d`)
		p.source = p.src.Role(t, "bf_only_select")
		p.src.Exec(t, "alter database "+p.src.Name+` owner to postgres;
			grant usage on schema public, "Größe" to bf_only_select;
			grant select on all tables in schema public, "Größe" to bf_only_select;
			grant select on all sequences in schema "Größe" to bf_only_select`)
		wantOutput(t, p.clone(t, "--no-owner", "--no-privileges", "--hypertable", `"Größe"."Mess Werte"=Zeit,7 days`,
			"--hypertable", "history=clock,86400", "--hypertable", "events=at,1 day"), 0, "hypertables: 3,")
		said, status := output(t, p.script(t, "backfill", "--until", "2024-02-10T12:00:00", "--parallelism", "2",
			"--filter", `Mess|events`))
		_, sql, told := strings.Cut(said, "run there: ")
		if status != 0 || !told {
			t.Errorf("exit status %d, a sequence was named: %t\n%s", status, told, said)
		}
		sql, _, _ = strings.Cut(sql, "\n")
		p.dst.Exec(t, sql)
		p.ask(t, `select nextval('"Größe"."Mess Werte_id_seq"') = max(id) + 1 from "Größe"."Mess Werte"`, "t")
		wantOutput(t, p.script(t, "backfill", "--until", "1704600000", "--parallelism", "2",
			"--filter", `history`), 0)
		for _, query := range []string{`"Größe"."Mess Werte" where "Zeit" < '2024-02-10 12:00Z'`,
			"history where clock < 1704600000", `"Größe".device`} {
			p.same(t, "select * from "+query)
		}
		p.same(t, `select at, words from events where at < '2024-02-10 12:00'`)
		p.same(t, `select * from late where "Zeit" < '2024-02-10 12:00Z'`)
		p.ask(t, "select bool_and(verified is not null), count(distinct hypertable_name), min(kind), max(kind) "+
			"from __backfill.task", "t|3|slice|slice")
		r := p.run(t, "", "bf-verify", "--source", p.source, "--target", p.target, "--all")
		if r.status != 0 || strings.Count(r.stdout, `"status":"verified"`) < 20 {
			t.Errorf("bf-verify --all: exit status %d\n%s%s", r.status, r.stdout, r.stderr)
		}
	})
}

// TestCloneRefusals: what cannot work is refused with what helps, and nothing is
// made.
func TestCloneRefusals(t *testing.T) {
	v := newestPair(t)
	refused := func(t *testing.T, p *pair, args []string, messages ...string) {
		t.Helper()
		before := relations(t, p.dst)
		wantOutput(t, p.clone(t, args...), 1, messages...)
		if n := relations(t, p.dst); n != before {
			t.Errorf("%d relations were made", n-before)
		}
	}
	p := newPair(t, v)
	refused(t, p, []string{"--target", p.source}, "source and target are the same database\nhint: check")
	refused(t, p, []string{"--hypertable", "nothing=x"}, "source: there is no table nothing\nhint: ")
	refused(t, p, []string{"--hypertable", "nothing"}, "--hypertable nothing: not TABLE=COLUMN[,INTERVAL]\nhint: ")
	p.src.Exec(t, `create table t (a text, b int, c timestamptz); create view w as select 1;
        create table h (t timestamptz not null); select create_hypertable('h', 't')`)
	refused(t, p, []string{"--hypertable", "t=x"}, "table public.t has no column x")
	refused(t, p, []string{"--hypertable", "t=a"}, "column a of table public.t has type text")
	refused(t, p, []string{"--hypertable", "t=b"}, "column of type integer without an interval")
	refused(t, p, []string{"--hypertable", "t=c,soon"},
		`"soon" is no interval for a column of type timestamp with time zone`)
	refused(t, p, []string{"--hypertable", "w=a"}, "public.w is no table")
	refused(t, p, []string{"--hypertable", "h=t"}, "table public.h is a hypertable already")
	// What fails in the middle leaves nothing.
	var dir string
	p.src.Query1(t, &dir, "show data_directory")
	p.src.Exec(t, fmt.Sprintf(`create table u (i int); insert into u values (1), (2);
		create function f(int) returns int language sql immutable as
		'select case current_setting(''data_directory'') when ''%s'' then $1 else 0 end';
		create unique index u_f on u (f(i))`, dir))
	refused(t, p, []string{"--no-owner"}, "target: index public.u_f: could not create unique index", "(SQLSTATE 23505)",
		"nothing was made, the target is as empty as it was")
	refused(t, p, nil, "index public.u_f: could not create unique index",
		"nothing was made, the target is as empty as it was")
	p.dst.Exec(t, "create table there ()")
	refused(t, p, nil, "target: the database is not empty: "+
		"it has 1 tables, views and sequences\nhint: create a new database")
	p.src.Exec(t, "drop extension timescaledb cascade")
	refused(t, p, nil, "source: the database does not have the extension timescaledb")
}

// TestCloneStops: a stop in the middle leaves nothing, whatever is waited for.
func TestCloneStops(t *testing.T) {
	v := newestPair(t)
	p := newPair(t, v)
	p.src.Exec(t, "create table a (i int); create table b (i int)")
	conn := p.src.Conn(t)
	if _, err := conn.Exec(context.Background(), "begin; lock table b in access exclusive mode"); err != nil {
		t.Fatal(err)
	}
	before := relations(t, p.dst)
	cmd := p.clone(t, "--no-owner")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for waits := 0; waits == 0; time.Sleep(50 * time.Millisecond) {
		p.src.Query1(t, &waits, "select count(*)::int from pg_locks where not granted and relation = 'b'::regclass")
	}
	cmd.Process.Signal(os.Interrupt)
	cmd.Wait()
	if status := cmd.ProcessState.ExitCode(); status != 130 || !strings.Contains(stderr.String(), "stopped") {
		t.Errorf("exit status %d: %s", status, stderr.String())
	}
	if n := relations(t, p.dst); n != before {
		t.Errorf("%d relations were made", n-before)
	}
	// Nor does a dump go on.
	for n, deadline := 1, time.Now().Add(patience); n > 0 &&
		time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		p.src.Query1(t, &n, "select count(*)::int from pg_stat_activity where application_name = 'bf-clone-schema' "+
			"and datname = current_database()")
		if n > 0 && time.Until(deadline) < patience-10*time.Second {
			t.Fatalf("%d sessions of it are still there", n)
		}
	}
}

// TestCloneOlder: a schema does not move to an older TimescaleDB.
func TestCloneOlder(t *testing.T) {
	for _, source := range testdb.Installs(t) {
		for _, target := range testdb.Installs(t) {
			if source.Major == target.Major && source.Version != target.Version &&
				tsdb.AtLeast(source.Version, target.Version) {
				p := newPair(t, testdb.Pair{Source: source, Target: target})
				wantOutput(t, p.clone(t), 1, fmt.Sprintf("target: TimescaleDB %s is older than the source's %s\nhint: ",
					target.Version, source.Version))
				return
			}
		}
	}
	t.Skip("needs two versions on one PostgreSQL")
}

// TestCloneRole: a role that is no superuser makes what is its own, and is told
// what it may not.
func TestCloneRole(t *testing.T) {
	v := newestPair(t)
	p := newPair(t, v)
	withRoles(t, p.src, p.dst)
	p.src.Exec(t, "create table t (time timestamptz not null, v int); select create_hypertable('t', 'time'); "+
		"create index on t (v); grant select on t to bf_reader")
	p.src.Exec(t, "select add_retention_policy('t', interval '50 years')")
	p.target = p.dst.Role(t, "bf_cloner")
	before := relations(t, p.dst)
	// "must be member of role", from PostgreSQL 16 on "must be able to SET ROLE".
	wantOutput(t, p.clone(t), 1, ` "postgres" (SQLSTATE 42501)`, "--no-owner makes all belong to it",
		"nothing was made")
	if n := relations(t, p.dst); n != before {
		t.Errorf("%d relations were made", n-before)
	}
	wantOutput(t, p.clone(t, "--no-owner"), 0, "hypertables: 1, continuous aggregates: 0, jobs: 1;")
	if got := fmt.Sprint(sorted(t, p.dst, "select owner from timescaledb_information.hypertables")); got !=
		"[bf_cloner]" {
		t.Errorf("the owner is %s", got)
	}
	q := newPair(t, v)
	q.dst.Exec(t, "drop extension timescaledb cascade")
	q.src.Exec(t, "create table t (time timestamptz not null)")
	q.target = q.dst.Role(t, "bf_cloner")
	q.dst.Exec(t, "alter database "+q.dst.Name+" owner to postgres") // an owner may: the extension is trusted
	wantOutput(t, q.clone(t, "--no-owner"), 1, "create extension timescaledb: ",
		"have a superuser create the extension on the target")
}

// TestClonePrint: the script is the same each time, and makes by psql what the
// tool makes.
func TestClonePrint(t *testing.T) {
	v := newestPair(t)
	p := newPair(t, v)
	withRoles(t, p.src, p.dst)
	furnish(t, p.src, v.Source.Version, true)
	p.dst.Exec(t, "drop extension timescaledb cascade")
	p.dst.Reconnect()
	run := func(args ...string) string {
		cmd := p.clone(t, args...)
		var out, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &stderr
		if err := cmd.Run(); err != nil {
			t.Fatal(err, stderr.String())
		}
		return out.String()
	}
	script := run("--print")
	if again := run("--print"); again != script {
		t.Error("another script the second time")
	}
	if only := run("--print", "--schema-only"); strings.Contains(only, "FROM stdin") ||
		!strings.Contains(only, "create_hypertable") {
		t.Error("rows in --schema-only, or nothing at all")
	}
	if strings.Contains(script, `\restrict`) || strings.Count(script, "commit;") != 1 {
		t.Error("commands of psql's or several transactions in the script")
	}
	psql := exec.Command(filepath.Join(v.Target.BinDir, "psql"), "-Xq", "-v", "ON_ERROR_STOP=1", "-d", p.target)
	psql.Stdin = strings.NewReader(script)
	if out, err := psql.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	pause(t, p.src)
	diff(t, "catalogs", catalogs(t, p.src), catalogs(t, p.dst))
	diff(t, "pg_dump", dumped(t, p.src, v.Target.BinDir), dumped(t, p.dst, v.Target.BinDir))
	p.same(t, `select "Name", z, p, rest from "Größe"."Gerät"`)
}
