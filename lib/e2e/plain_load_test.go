package e2e

import (
	"fmt"
	"strings"
	"testing"

	"bf/lib/pg"
	"bf/lib/queue"
	"bf/lib/task"
	"bf/lib/testdb"
)

// newPlain is a pair whose source is a database without TimescaleDB.
func newPlain(t testing.TB, in testdb.Pair) *pair {
	t.Helper()
	src, dst := testdb.NewPlain(t, in.Source, "source"), testdb.New(t, in.Target, "target")
	return &pair{src, dst, src.ConnString, dst.ConnString}
}

const day = 86400 * 1000000

// handMade records tasks for the rows of a relation, one for each day from 2024-01-01,
// as bf-stage would: leaves is what holds them. By blocks, the blocks are mapped exactly.
func (p *pair) handMade(t testing.TB, relation, into string, days int, by string, leaves ...string) []*task.Task {
	t.Helper()
	var origin string
	p.src.Query1(t, &origin, `select system_identifier || '/' || oid from pg_control_system(), pg_database
        where datname = current_database()`)
	name := task.Name{Schema: "public", Name: relation}
	var plan []*task.Task
	for i := range days {
		from := int64(1704067200000000 + i*day)
		tk := &task.Task{V: task.VersionOther, Kind: task.KindSlice, Hypertable: name, Chunk: name, Origin: origin,
			Slices: []task.Slice{{Column: "time", From: fmt.Sprint(from), Until: fmt.Sprint(from + day)}}, Scan: &task.
				Scan{By: by}}
		if into != "" {
			tk.Into = &task.Name{Schema: "public", Name: into}
		}
		tk.Range = task.Range{Column: "time", From: tk.Slices[0].From, Until: tk.Slices[0].Until}
		within := fmt.Sprintf("time >= '2024-01-01 UTC'::timestamptz + interval '%d days' and time < '2024-01-01 "+
			"UTC'::timestamptz + interval '%d days'", i, i+1)
		for _, l := range leaves {
			leaf := task.Leaf{Name: task.Name{Schema: "public", Name: l}}
			if by == task.ByBlocks {
				quoted := pg.Ident("public", l)
				p.src.Query1(t, &leaf.Filenode, "select pg_relation_filenode($1::regclass)::text", quoted)
				for _, r := range p.src.Rows(t,
					"select distinct (ctid::text::point)[0]::int from only "+quoted+" where "+within+" order by 1") {
					var n uint32
					fmt.Sscan(r[0], &n)
					if k := len(leaf.Blocks); k > 0 && leaf.Blocks[k-1].Until == n {
						leaf.Blocks[k-1].Until++
					} else {
						leaf.Blocks = append(leaf.Blocks, task.Blocks{First: n, Until: n + 1})
					}
				}
				if len(leaf.Blocks) == 0 {
					continue
				}
			}
			tk.Scan.Relations = append(tk.Scan.Relations, leaf)
		}
		p.src.Query1(t, &tk.Rows, "select count(*) from "+pg.Ident("public", relation)+" where "+within)
		if by == task.ByBlocks {
			tk.Scan.Rows = tk.Rows
		}
		tk.Bytes = 40 * tk.Rows
		if tk.Rows > 0 {
			plan = append(plan, tk)
		}
	}
	c, err := pg.Connect(t.Context(), pg.Target, p.target, pg.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := queue.Create(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	r, err := queue.Record(t.Context(), c, plan, false)
	if err != nil {
		t.Fatal(err)
	}
	return r.Staged
}

// lane copies what is pending.
func (p *pair) lane(t testing.TB) result {
	t.Helper()
	return p.sh(t, `bf-chunks --target "$TARGET" | bf-dump --source "$SOURCE" | bf-load --target "$TARGET"`)
}

func TestSlices(t *testing.T) {
	testdb.EachVersion(t, func(t *testing.T, in testdb.Pair) {
		p := newPlain(t, in)
		p.src.Exec(t, `
            create table m (time timestamptz not null, dev int, v float8, note varchar(9));
            insert into m select '2024-01-01'::timestamptz + i * interval '1 minute', i % 3, i, 'n' || i
            from generate_series(0, 4319) i;
            create table q (note text, gone int, time timestamptz, "Val" numeric(9,2)) partition by range (time);
            create table q1 partition of q for values from ('2024-01-01') to ('2024-01-03');
            create table q2 partition of q default;
            alter table q drop column gone;
            insert into q select 'x', '2024-01-01'::timestamptz + i * interval '10 minutes', i / 100.0
            from generate_series(0, 575) i`)
		p.dst.Exec(t, `
            create table m (v float8, time timestamptz not null, note text, dev int);
            select create_hypertable('m', 'time', chunk_time_interval => interval '1 day');
            select add_dimension('m', 'dev', number_partitions => 3);
            insert into m select 1, '2024-01-02'::timestamptz + i * interval '1 minute', 'dual', i % 7
            from generate_series(0, 99) i;
            insert into m values (1, '2024-01-09', 'after T', 1);
            create table "Q" (time timestamptz not null, "Val" numeric, note text);
            select create_hypertable('"Q"', 'time', chunk_time_interval => interval '1 day');
            insert into "Q" values ('2024-01-03 05:00', 1, 'dual')`)
		p.handMade(t, "m", "", 3, task.ByBlocks, "m")
		p.handMade(t, "q", "Q", 4, task.ByRange, "q1", "q2")
		if r := p.lane(t); r.status != 0 {
			t.Fatalf("exit status %d\n%s%s", r.status, r.stdout, r.stderr)
		}
		p.dst.Exec(t, "delete from m where note = 'after T'")
		p.same(t, "select time, dev, v, note from m")
		diff(t, "q", sorted(t, p.src, "select * from q"), sorted(t, p.dst, `select note, time, "Val" from "Q"`))
		r := p.sh(t, `bf-verify --source "$SOURCE" --target "$TARGET"`)
		if r.status != 0 || strings.Count(r.stdout, `"status":"verified"`) != 7 {
			t.Errorf("bf-verify: exit status %d\n%s%s", r.status, r.stdout, r.stderr)
		}
	})
}

// ask is a query that must give these rows on the target.
func (p *pair) ask(t testing.TB, query string, want ...string) {
	t.Helper()
	if got := flat(p.dst.Rows(t, query)); strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("%s: %q, want %q", query, got, want)
	}
}
