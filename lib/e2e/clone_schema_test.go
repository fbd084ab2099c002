package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"bf/lib/testdb"
	"bf/lib/tsdb"
)

func TestCloneSchema(t *testing.T) {
	testdb.EachVersion(t, func(t *testing.T, v testdb.Pair) {
		p := newPair(t, v)
		p.src.Exec(t, `create table device (id int primary key, name text not null)`)
		p.src.Exec(t, `insert into device select n, 'd' || n from generate_series(1, 3) n`)
		p.src.Exec(t, `create table metrics (time timestamptz not null, device int not null references device,
            value float8, primary key (device, time))`)
		p.src.Exec(t, `select create_hypertable('metrics', 'time', chunk_time_interval => interval '1 day')`)
		p.src.Exec(t, `create schema own`)
		p.src.Exec(t, `create table "own names" (n int not null)`)
		p.src.Exec(t, `select create_hypertable('"own names"', 'n', chunk_time_interval => 10,
            associated_schema_name => 'own', associated_table_prefix => 'it''s')`)
		p.src.Exec(t, `insert into metrics select t, d, d
            from generate_series(timestamptz '2016-01-01Z', '2016-01-04Z', '1 hour') t, generate_series(1, 3) d`)
		p.src.Exec(t, `insert into "own names" select generate_series(1, 25)`)
		chunks := 4 + 3
		if v.Source.Full {
			p.src.Exec(t, `alter table metrics set (timescaledb.compress, timescaledb.compress_segmentby = 'device')`)
			p.src.Exec(t, `select compress_chunk(c)
                from show_chunks('metrics', older_than => timestamptz '2016-01-02Z') c`)
			p.src.Exec(t, `create materialized view daily with (timescaledb.continuous) as
                select time_bucket('1 day', time) d, max(value) from metrics group by 1 with no data`)
			p.src.Exec(t, `alter table "own names" set (timescaledb.compress);
                select compress_chunk(c) from show_chunks('"own names"') c`)
			p.src.Exec(t, `select add_continuous_aggregate_policy('daily', interval '1 year', interval '1 hour',
                interval '1 hour')`)
			p.src.Exec(t, `select alter_job(add_retention_policy('metrics', interval '50 years'), scheduled => false)`)
			// Some versions can pause neither this policy nor all at once.
			p.src.Exec(t, `create materialized view weekly with (timescaledb.continuous) as
                select time_bucket('1 week', d) w, max(max) from daily group by 1 with no data`)
			p.src.Exec(t, `select add_continuous_aggregate_policy('weekly', null, interval '1 hour',
                interval '1 hour')`)
		}
		// What a real target's database is: without the extension.
		p.dst.Exec(t, "drop extension timescaledb cascade")
		wantOutput(t, p.clone(t), 0, "chunks are empty")
		p.same(t, "select * from device")
		p.same(t, "select hypertable_name, chunk_schema, chunk_name, is_compressed from timescaledb_information.chunks")
		for _, c := range []struct {
			query string
			want  int
		}{
			{"select count(*) from timescaledb_information.chunks where hypertable_name in ('metrics', 'own names')",
				chunks},
			{`select (select count(*) from metrics) + (select count(*) from "own names")`, 0},
			{"select coalesce(sum(pg_relation_size(oid)), 0) from pg_class where relkind = 'r' " +
				"and relname ~ 'compress' and relnamespace <> '_timescaledb_catalog'::regnamespace", 0},
			{"select count(*) from timescaledb_information.jobs where job_id >= 1000 and scheduled", 0},
			{"select count(*) from pg_db_role_setting " +
				"where setdatabase = (select oid from pg_database where datname = current_database())", 0},
		} {
			var got int
			if p.dst.Query1(t, &got, c.query); got != c.want {
				t.Errorf("%s: %d, want %d", c.query, got, c.want)
			}
		}

		wantOutput(t, p.script(t, "backfill", "--until", "2016-01-03 12:00Z", "--filter", "metrics"), 0)
		// native in every way
		p.dst.Exec(t, "insert into metrics values ('2016-01-03 11:59Z', 3, 1), ('2016-02-01Z', 3, 1)")
		p.dst.Exec(t, "delete from metrics where time in ('2016-01-03 11:59Z', '2016-02-01Z')")
		var got string
		p.dst.Query1(t, &got, "select max(time at time zone 'UTC')::text from metrics")
		if got != "2016-01-03 11:00:00" {
			t.Errorf("copied until %s", got)
		}
		wantOutput(t, p.clone(t), 1, "the database is not empty")
	})
}

// TestCloneSchemaElsewhere clones a database whose extension is in a schema of
// its own, where the extension is on the target already, and where not.
func TestCloneSchemaElsewhere(t *testing.T) {
	testdb.EachEdge(t, func(t *testing.T, v testdb.Pair) {
		for _, there := range []bool{false, true} {
			p := newPair(t, v)
			p.both(t, `drop extension timescaledb cascade; create schema "my ts"`)
			extension := fmt.Sprintf(`create extension timescaledb schema "my ts" version '%s'`, v.Source.Version)
			p.src.Reconnect()
			p.src.Exec(t, extension)
			p.src.Reconnect()
			p.src.Exec(t, `create table metrics (time timestamptz not null, value float8);
				select "my ts".create_hypertable('metrics', 'time', chunk_time_interval => interval '1 day');
				insert into metrics select t, 1
				from generate_series(timestamptz '2016-01-01Z', '2016-01-04Z', '1 hour') t`)
			if v.Source.Full {
				p.src.Exec(t, `create materialized view daily with (timescaledb.continuous) as
                    select "my ts".time_bucket('1 day', time) d, max(value) from metrics group by 1 with no data`)
				p.src.Exec(t, `select "my ts".add_continuous_aggregate_policy('daily', interval '1 year',
                    interval '1 hour', interval '1 hour')`)
			}
			p.dst.Reconnect()
			if there {
				p.dst.Exec(t, extension)
				p.dst.Reconnect()
			} else {
				p.dst.Exec(t, `drop schema "my ts"`)
			}
			say := []string{"chunks are empty"}
			if v.Source.Full {
				say = append(say, `select "my ts".alter_job(n`)
			}
			wantOutput(t, p.clone(t), 0, say...)
			wantOutput(t, p.script(t, "backfill", "--until", "2016-01-03 12:00Z"), 0)
			p.same(t, "select * from metrics where time < '2016-01-03 12:00Z'")
		}
		p := newPair(t, v)
		p.src.Exec(t, "drop extension timescaledb cascade; create schema ts")
		p.src.Reconnect()
		p.src.Exec(t, "create extension timescaledb schema ts version '"+v.Source.Version+"'")
		wantOutput(t, p.clone(t), 1, "source has the extension timescaledb in schema ts, target in public")
	})
}

// TestCloneSchemaReferences clones tables that reference a hypertable: there
// they would reference nothing.
func TestCloneSchemaReferences(t *testing.T) {
	testdb.EachEdge(t, func(t *testing.T, v testdb.Pair) {
		if !tsdb.AtLeast(v.Source.Version, "2.16") {
			t.Skip("no foreign key may reference a hypertable there")
		}
		p := newPair(t, v)
		p.src.Exec(t, `create table metrics (time timestamptz primary key, value float8);
			select create_hypertable('metrics', 'time', chunk_time_interval => interval '1 day');
			create table note (id int primary key, time timestamptz references metrics, words text);
			create table reply (id int primary key, note int references note);
			create table other (id int primary key);
			create table logged (time timestamptz not null, note int references note);
			select create_hypertable('logged', 'time');
			insert into metrics select t, 1 from generate_series(timestamptz '2016-01-01Z', '2016-01-04Z', '1 hour') t;
			insert into note values (1, '2016-01-02Z', 'hot'); insert into reply values (1, 1);
			insert into other values (1);
			insert into logged values ('2016-01-01Z', 1)`)
		p.dst.Exec(t, "drop extension timescaledb cascade")
		wantOutput(t, p.clone(t), 0, "without their rows, as they reference a hypertable: public.note, public.reply; "+
			"after the backfill copy them: pg_dump --data-only -t 'public.note' -t 'public.reply' ")
		p.same(t, "select * from other")
		wantOutput(t, p.script(t, "backfill", "--until", "2016-01-05Z", "--filter", "metrics"), 0)
		if r := p.sh(t, `PATH=`+v.Target.BinDir+
			`:$PATH; pg_dump --data-only -t 'public.note' -t 'public.reply' -d "$SOURCE" | psql -Xq -v `+
			`ON_ERROR_STOP=1 -d "$TARGET"`); r.status != 0 {
			t.Errorf("exit status %d: %s", r.status, r.stderr)
		}
		p.same(t, "select * from note join reply on note = note.id join metrics using (time)")
	})
}

// TestCloneSchemaRefuses lists what a dump cannot bring.
func TestCloneSchemaRefuses(t *testing.T) {
	in := testdb.Installs(t)
	p := newPair(t, testdb.Pair{Source: in[0], Target: in[0]})
	role := fmt.Sprintf("bf_nobody_%d", os.Getpid())
	p.src.Exec(t, "create role "+role)
	t.Cleanup(func() { p.src.Exec(t, "drop owned by "+role); p.src.Exec(t, "drop role "+role) })
	p.src.Exec(t, "create table t (time timestamptz not null)")
	p.src.Exec(t, "grant select on t to "+role)
	wantOutput(t, p.clone(t), 1, "target: these roles do not exist there: "+role+"\nhint: ")
	wantOutput(t, p.clone(t, "--source", strings.Replace(p.source, p.src.Name, "postgres", 1)), 1,
		"source: the database does not have the extension")
}
