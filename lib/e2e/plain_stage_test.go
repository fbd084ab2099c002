package e2e

import (
	"strings"
	"testing"

	"bf/lib/task"
	"bf/lib/testdb"
)

// byRelation groups records by the relation that they read.
func byRelation(ts []*task.Task) map[string][]*task.Task {
	m := map[string][]*task.Task{}
	for _, t := range ts {
		m[t.Hypertable.Name] = append(m[t.Hypertable.Name], t)
	}
	return m
}

// TestPlainSource copies a database without TimescaleDB, as a role that may read it and
// nothing else: all that decides how a relation is read, side by side.
func TestPlainSource(t *testing.T) {
	testdb.EachEdge(t, func(t *testing.T, in testdb.Pair) {
		p := newPlain(t, in)
		const day = "chunk_time_interval => interval '1 day'"
		make := func(name, columns string) { // on the target
			p.dst.Exec(t, "create table "+name+" ("+columns+"); select create_hypertable('"+name+"', 'time', "+day+")")
		}
		rows := "'2024-01-01'::timestamptz + i * interval '2 minutes', i % 7, i from generate_series(0, 14399) i"
		for _, name := range []string{"indexed", "brin", "ordered", "zabbix", "devices"} {
			p.src.Exec(t, "create table "+name+" (time timestamptz not null, dev int, v int)")
			make(name, "time timestamptz not null, dev int, v int")
		}
		p.src.Exec(t, `
            insert into indexed select `+rows+`; create index on indexed (time desc, dev);
            insert into brin select `+rows+`; create index on brin using brin (time);
            insert into ordered select `+rows+`;
            insert into zabbix select `+rows+`; create index on zabbix (dev, time);
            insert into devices select `+rows+` order by i % 7, i; create index on devices (time);
            insert into indexed values ('1970-01-05 12:00', 1, -1)`)
		ts := byRelation(p.stage(t, "--until", "2024-01-20 12:00:00+00"))
		for name, want := range map[string]struct {
			by    string
			tasks int
		}{"indexed": {task.ByRange, 21}, "brin": {task.ByRange, 20}, "ordered": {task.ByBlocks, 20},
			"zabbix": {task.ByBlocks, 20}, "devices": {task.ByRange, 20}} {
			if n := len(ts[name]); n != want.tasks || ts[name][0].Scan.By != want.by {
				t.Errorf("%s: %d tasks by %s, want %d by %s", name, n, ts[name][0].Scan.By, want.tasks, want.by)
			}
		}
		if r := p.lane(t); r.status != 0 {
			t.Fatalf("exit status %d\n%s%s", r.status, r.stdout, r.stderr)
		}
		for name := range ts {
			diff(t, name, sorted(t, p.src, "select * from "+name+" where time < '2024-01-20 12:00:00+00'"),
				sorted(t, p.dst, "select * from "+name))
		}
		r := p.sh(t, `bf-verify --source "$SOURCE" --target "$TARGET"`)
		if r.status != 0 || strings.Count(r.stdout, `"status":"verified"`) != 101 {
			t.Errorf("bf-verify: exit status %d\n%s%s", r.status, r.stdout, r.stderr)
		}
	})
}
