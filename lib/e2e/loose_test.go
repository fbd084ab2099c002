package e2e

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"bf/lib/task"
	"bf/lib/testdb"
)

// TestForetold has bf-stage, whole and in two halves, say before the copy which
// chunks will be left uncompressed, with the space that takes and what helps, and
// which rows no query shows; and checks that of the space on the target.
func TestForetold(t *testing.T) {
	testdb.EachMove(t, func(t *testing.T, v testdb.Pair) {
		if !v.Source.Full {
			t.Skip("no compressed chunks")
		}
		p := newPair(t, v)
		p.both(t, "create table off(ts timestamptz not null, dev int, v float8); "+
			"select create_hypertable('off', 'ts', chunk_time_interval => interval '7 days'); "+
			"create table off2(like off); select create_hypertable('off2', 'ts')")
		const compress = "alter table %[1]s set (timescaledb.compress, timescaledb.compress_segmentby = 'dev')"
		for _, h := range []string{"off", "off2"} {
			p.src.Exec(t, fmt.Sprintf(compress+
				"; insert into %[1]s select '2024-01-01'::timestamptz + n * interval '1 minute', n %% 4, n "+
				"from generate_series(1, 30000) n; select compress_chunk(c) from show_chunks('%[1]s') c", h))
		}
		if v.Target.Full {
			p.dst.Exec(t, fmt.Sprintf(compress, "off2"))
		}
		plan := p.run(t, "", "bf-stage", "--source", p.source, "--until", "2025-01-01")
		halves := p.run(t, plan.stdout, "bf-stage", "--target", p.target)
		p.dst.Exec(t, "drop schema __backfill cascade")
		whole := p.run(t, "", "bf-stage", "--source", p.source, "--target", p.target, "--until", "2025-01-01")
		why, loose := "compression is not enabled on the target", 1
		if !v.Target.Full {
			why, loose = "the target is the Apache edition", 2
		}
		says := regexp.MustCompile(`public\.off: \d compressed chunks will be left uncompressed \(` + why +
			`\): ([0-9.]+ [kM]?B) become about ([0-9.]+ [kM]B); this helps: .+`)
		for _, r := range []result{halves, whole} {
			if r.status != 0 || !says.MatchString(r.stderr) || strings.Count(r.stderr, "left uncompressed") != loose {
				t.Errorf("bf-stage said, with status %d:\n%s", r.status, r.stderr)
			}
		}
		for _, r := range p.copy(t) {
			if want := r.Hypertable.Name == "off" || loose == 2; (r.LeftUncompressed != "") != want {
				t.Errorf("%s: %q", r.Chunk, r.LeftUncompressed)
			}
			if r.LeftUncompressed != "" && r.LeftUncompressed != task.LooseApache &&
				r.LeftUncompressed != task.LooseDisabled {
				t.Errorf("%s: %q", r.Chunk, r.LeftUncompressed)
			}
		}
		// What was foretold, in bytes as people read them, against what it took.
		if m := says.FindStringSubmatch(whole.stderr); m != nil {
			foretold := p.dst.Rows(t, "select pg_size_bytes('"+m[2]+"')")[0][0]
			if got := p.dst.Rows(t, "select sum(pg_total_relation_size(c)) between "+foretold+" * 0.7 and "+foretold+
				" * 1.4, sum(pg_total_relation_size(c)) from show_chunks('off') c")[0]; got[0] != "t" {
				t.Errorf("foretold %s, it is %s", foretold, got[1])
			}
		}
	})
}

// TestForetoldHidden has bf-stage name rows that no query shows.
func TestForetoldHidden(t *testing.T) {
	testdb.EachFull(t, func(t *testing.T, v testdb.Pair) {
		p := newPair(t, v)
		p.both(t, "create table h(ts timestamptz not null, v int); select create_hypertable('h', 'ts'); "+
			"alter table h set (timescaledb.compress)")
		p.src.Exec(t, "insert into h select '2024-01-01'::timestamptz + n * interval '1 minute', n "+
			"from generate_series(1, 3000) n; select compress_chunk(c) from show_chunks('h') c")
		chunk := p.src.Rows(t, "select show_chunks('h')")[0][0]
		p.src.Exec(t, "insert into "+chunk+" values ('2024-01-01 00:00:30+00', -1)")
		hidden := p.src.Rows(t, "select exists (select from h where v = -1)")[0][0] == "f"
		r := p.run(t, "", "bf-stage", "--source", p.source, "--target", p.target, "--until", "2025-01-01")
		if said := strings.Contains(r.stderr,
			"source: public.h has rows beside the batches of compressed chunks that no query shows and that are not "+
				"copied: 1 in _hyper_"); r.status != 0 || said != hidden {
			t.Errorf("hidden: %t; bf-stage said, with status %d:\n%s", hidden, r.status, r.stderr)
		}
		for _, r := range p.copy(t) {
			if want := r.Chunk.String() == chunk && hidden; (r.Hidden == 1) != want {
				t.Errorf("%s: %d hidden rows", r.Chunk, r.Hidden)
			}
		}
		if a, b := p.src.Rows(t, "select count(*) from h"),
			p.dst.Rows(t, "select count(*) from h"); a[0][0] != b[0][0] {
			t.Errorf("%s rows shown, %s copied", a[0][0], b[0][0])
		}
	})
}
