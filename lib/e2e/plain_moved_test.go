package e2e

import (
	"fmt"
	"strings"
	"testing"

	"bf/lib/task"
	"bf/lib/testdb"
)

// TestMovedRows: rows that move between map and copy are never lost without a word. A
// task whose blocks hold another number fails; what came into other blocks is found when
// the relation is counted as a whole, and takes the verdict back; a relation that was
// rewritten, or is gone, fails. The target is left as it was, and staging again heals.
func TestMovedRows(t *testing.T) {
	testdb.EachEdge(t, func(t *testing.T, in testdb.Pair) {
		p := newPlain(t, in)
		byRange := map[string]bool{"detached": true, "grown": true}
		names := []string{"updated", "late", "rewritten", "emptied", "dropped", "detached", "grown"}
		for _, name := range names {
			p.src.Exec(t, fmt.Sprintf(`create table %[1]s (time timestamptz not null, v int, pad text)
                    partition by range (time);
                create table %[1]s_1 partition of %[1]s for values from (minvalue) to ('2024-01-03');
                insert into %[1]s select '2024-01-01'::timestamptz + i * interval '1 minute', i, repeat('x', 200)
                    from generate_series(0, 2879) i`, name))
			p.dst.Exec(t, fmt.Sprintf(`create table %[1]s (time timestamptz not null, v int, pad text);
                select create_hypertable('%[1]s', 'time', chunk_time_interval => interval '1 day');
                insert into %[1]s values ('2024-01-01 10:00', -1, 'dual')`, name))
		}
		p.src.Exec(t, "delete from late where v between 2000 and 2200")
		p.src.Exec(t, "vacuum late_1")
		for _, name := range names {
			by := task.ByBlocks
			if byRange[name] {
				by = task.ByRange
			}
			p.handMade(t, name, "", 2, by, name+"_1")
		}
		p.src.Exec(t, `update updated set v = -v where time = '2024-01-01 00:07';
            insert into late select '2024-01-01 12:00', 100000 + i, repeat('x', 200) from generate_series(1, 20) i`)
		p.src.Exec(t, "vacuum full rewritten_1")
		p.src.Exec(t, `truncate emptied; drop table dropped; alter table detached detach partition detached_1;
            create table grown_2 partition of grown for values from ('2024-01-03') to ('2024-01-04')`)
		if r := p.lane(t); r.status != 1 {
			t.Errorf("exit status %d\n%s", r.status, r.stderr)
		}
		for name, says := range map[string]string{
			"updated": `source: task \d+ \(public.updated .*\): rows were changed since their blocks were mapped: ` +
				`1439 rows in its blocks, 1440 when it was staged`,
			"rewritten": "public.rewritten_1 was rewritten since its blocks were mapped",
			"emptied":   "public.emptied_1 was rewritten since its blocks were mapped",
			"dropped":   "is not there any more",
			"detached":  "public.detached_1 is no partition or child of it any more",
		} {
			p.ask(t, fmt.Sprintf("select count(*) from %s where pad = 'dual'", name), "1")
			p.ask(t, fmt.Sprintf(`select bool_and(worked is null and copy_message ~ '%s') from __backfill.task
                where hypertable_name = '%s' and (filter->>'from' = '1704067200000000'
                    or '%[2]s' <> 'updated')`, says, name), "t")
		}
		p.same(t, "select time, v from grown")
		p.ask(t, "select count(*), count(*) filter (where pad = 'dual') from late", "2679|0")

		// Late rows are in blocks of the other day: found, and healed.
		r := p.sh(t, `bf-verify --source "$SOURCE" --target "$TARGET"`)
		if r.status != 3 || !strings.Contains(r.stderr, "had 1440 when their blocks were mapped") {
			t.Errorf("bf-verify with late rows: exit status %d\n%s%s", r.status, r.stdout, r.stderr)
		}
		p.ask(t, "select count(*) filter (where verified is null "+
			"and verify_message like 'the source has 1460 rows%'), count(verified) "+
			"from __backfill.task where hypertable_name = 'late'", "1|1")
		for _, name := range []string{"updated", "late", "rewritten"} {
			p.handMade(t, name, "", 2, task.ByBlocks, name+"_1")
		}
		r = p.sh(t, `bf-chunks --target "$TARGET" --done | grep late | bf-dump --source "$SOURCE" |
                bf-load --target "$TARGET" --force
            bf-chunks --target "$TARGET" --filter '^public\.(updated|rewritten)$' | bf-dump --source "$SOURCE" |
                bf-load --target "$TARGET"
            bf-chunks --target "$TARGET" --done | bf-verify --source "$SOURCE" --target "$TARGET" -`)
		if r.status != 0 {
			t.Errorf("staged again: exit status %d\n%s%s", r.status, r.stdout, r.stderr)
		}
		for _, name := range []string{"updated", "late", "rewritten"} {
			p.same(t, "select time, v from "+name)
		}
		p.ask(t, "select count(*) from __backfill.task where verified is not null", "8")

		// A partition that came later and may hold rows of the range.
		p.src.Exec(t, `drop table grown_2; alter table grown detach partition grown_1;
            delete from grown_1 where time >= '2024-01-02 12:00';
            alter table grown attach partition grown_1 for values from (minvalue) to ('2024-01-02 12:00');
            create table grown_2 partition of grown for values from ('2024-01-02 12:00') to ('2024-01-04')`)
		r = p.sh(t, `bf-chunks --target "$TARGET" --done --filter grown | bf-dump --source "$SOURCE" |
            bf-load --target "$TARGET" --force`)
		if r.status != 1 ||
			strings.Count(r.stderr, "public.grown_2 is a partition or child of it since it was staged") == 0 ||
			strings.Count(r.stdout, `"status":"loaded"`) != 1 {
			t.Errorf("grown: exit status %d\n%s%s", r.status, r.stdout, r.stderr)
		}
	})
}

// TestLateRows: what comes after the map is found though no task reads it: rows before
// the first task and after the last one by the count of the relation, a child by the
// next dump. What was not staged is nobody's concern.
func TestLateRows(t *testing.T) {
	testdb.EachEdge(t, func(t *testing.T, in testdb.Pair) {
		p := newPlain(t, in)
		p.src.Exec(t, `create table fam (time timestamptz not null, v int);
            create table fam_rows () inherits (fam); create table fam_none () inherits (fam);
            insert into fam_rows select '2024-01-02'::timestamptz + i * interval '1 minute', i
                from generate_series(0, 7199) i`)
		p.dst.Exec(t, `create table fam (time timestamptz not null, v int);
            select create_hypertable('fam', 'time', chunk_time_interval => interval '1 day')`)
		stage := func() []*task.Task {
			return p.stage(t, "--from", "2024-01-01 00:00:00+00", "--until", "2024-01-09 12:00:00+00")
		}
		if staged := stage(); len(staged) != 5 || staged[0].Scan.By != task.ByBlocks || len(staged[0].Scan.Empty) != 2 {
			t.Fatalf("%d tasks, %+v", len(staged), staged[0].Scan)
		}
		if n := len(p.stage(t, "--from", "2024-01-01 00:00:00+00", "--until", "2024-01-10 00:00:00+00")); n != 0 {
			t.Errorf("%d tasks are said to be new, by a later T and no row", n)
		}
		stage()
		p.copy(t)
		verify := func(status int, says ...string) {
			t.Helper()
			r := p.sh(t, `bf-verify --source "$SOURCE" --target "$TARGET" --all`)
			if r.status != status || strings.Count(r.stdout, "belong to no task") != len(says) {
				t.Errorf("bf-verify: exit status %d, want %d\n%s%s", r.status, status, r.stdout, r.stderr)
			}
			for _, want := range says {
				if !strings.Contains(r.stdout, want) {
					t.Errorf("bf-verify does not say %q:\n%s", want, r.stdout)
				}
			}
		}
		verify(0)
		p.src.Exec(t, `insert into fam_rows values ('2023-12-31', 1), ('2024-01-09 12:00', 2)`)
		verify(0)
		p.src.Exec(t, `insert into fam_rows values ('2024-01-01 05:00', 3), ('2024-01-01 06:00', 4),
            ('2024-01-09 11:59', 5)`)
		verify(3, "2 rows of the source", "1 rows of the source")
		stage()
		p.copy(t)
		verify(0)

		p.src.Exec(t, `create table fam_late () inherits (fam); insert into fam_late values ('2024-01-03 05:00', 6)`)
		const again = `bf-chunks --target "$TARGET" --done | bf-dump --source "$SOURCE" |
            bf-load --target "$TARGET" --force`
		r := p.sh(t, again)
		if r.status != 1 || strings.Contains(r.stdout, `"status":"loaded"`) ||
			!strings.Contains(r.stderr, "public.fam_late is a partition or child of it since it was staged") {
			t.Errorf("a new child: exit status %d\n%s%s", r.status, r.stdout, r.stderr)
		}
		stage()
		if r := p.sh(t, again); r.status != 0 {
			t.Errorf("staged again: exit status %d\n%s%s", r.status, r.stdout, r.stderr)
		}
		verify(0)
		p.same(t, "select * from fam where time >= '2024-01-01' and time < '2024-01-09 12:00:00+00'")
	})
}
