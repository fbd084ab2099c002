package e2e

import (
	"regexp"
	"strings"
	"testing"

	"bf/lib/testdb"
)

// TestDryRun: what bf-stage tells beforehand, without a trace on either side.
func TestDryRun(t *testing.T) {
	p := newPair(t, newestFull(t))
	p.metrics(t)
	p.src.Exec(t, "alter table metrics set (timescaledb.compress, timescaledb.compress_segmentby = 'device')")
	p.src.Exec(t, "select compress_chunk(c) from show_chunks('metrics', older_than => timestamptz '2015-12-30Z') c")
	p.src.Exec(t, "analyze metrics")
	p.dst.Exec(t, "alter table metrics set (timescaledb.compress, timescaledb.compress_segmentby = 'device')")
	p.dst.Exec(t, "select add_retention_policy('metrics', interval '100 years'); analyze metrics")
	dry := func(args ...string) result {
		t.Helper()
		return p.run(t, "", "bf-stage", append(args, "--source", p.source, "--until", "2016-01-02", "--dry-run")...)
	}
	r := dry("--target", p.target, "--sample", "1")
	for _, want := range []string{`(?m)^hypertable +chunks +compressed +rows +to travel +on the target +as$`,
		`(?m)^public.metrics +8 +5 +~6.9 k +\S+ .B +~\S+ .B  batches as they are, rows$`, `(?m)^total +8 +5 `,
		`target: job \d+ \(retention of public.metrics\) is scheduled; to pause it: `,
		`public.metrics: chunks of the target with rows in the range: 1, rows: `, `locks: source: ACCESS SHARE`,
		`sample: the source gives one lane \S+ .B/s`, `sample: the network to the target takes \S+ .B/s`,
		`estimate: \S+ for `} {
		if !regexp.MustCompile(want).MatchString(r.stderr) {
			t.Errorf("%s does not match\n%s", want, r.stderr)
		}
	}
	pictured(t, "bf-stage", "The dry run", r.stderr)
	if r := dry("--quiet"); r.stderr != "" {
		t.Errorf("--quiet: %s", r.stderr)
	}
	alone := dry()
	n := strings.Count(r.stdout, `"range"`)
	if r.status != 0 || alone.status != 0 || n != 8 || strings.Count(alone.stdout, `"range"`) != n {
		t.Errorf("exit status %d and %d, plan %s", r.status, alone.status, r.stdout)
	}
	// Another target: no role of ours, and a column less.
	p.dst.Exec(t, "alter table metrics drop column value")
	if r := dry("--target", p.target); r.status != 1 || !strings.Contains(r.stderr, "total") ||
		!strings.Contains(r.stderr, `column "value" does not exist there`) {
		t.Errorf("exit status %d\n%s", r.status, r.stderr)
	}
	var traces bool
	p.dst.Query1(t, &traces, "select to_regnamespace('__backfill') is not null")
	if traces {
		t.Error("it wrote to the target")
	}
	for _, args := range [][]string{{"--sample", "1"}, {"--dry-run", "--pause-jobs", "--target", p.target}} {
		r := p.run(t, "", "bf-stage", append(args, "--source", p.source, "--until", "2016-01-02")...)
		if r.status != 2 {
			t.Errorf("bf-stage %q: exit status %d, %s", args, r.status, r.stderr)
		}
	}
}

// TestExchanged: source and target given the wrong way round are noticed before
// anything is paused or recorded.
func TestExchanged(t *testing.T) {
	in := testdb.Installs(t)[0]
	p := newPair(t, testdb.Pair{Source: in, Target: in})
	p.metrics(t)
	p.dst.Exec(t, "delete from metrics where time < '2016-01-02Z'")
	p.dst.Exec(t, "vacuum full metrics")
	wrong := []string{"--source", p.target, "--target", p.source, "--until", "2016-01-02", "--pause-jobs"}
	r := p.run(t, "", "bf-stage", wrong...)
	if r.status != 2 || !strings.Contains(r.stderr,
		"target: holds rows before --until, and the source holds none: are the two exchanged?") ||
		!strings.Contains(r.stderr, "hint: check --source and --target; if it is meant, give --yes") {
		t.Errorf("exit status %d\n%s", r.status, r.stderr)
	}
	untouched := func(after string) {
		t.Helper()
		var traces bool
		p.src.Query1(t, &traces, "select to_regnamespace('__backfill') is not null")
		if traces {
			t.Fatalf("%s: it wrote to what was given as the target", after)
		}
	}
	untouched("bf-stage")
	backfill := p.script(t, "backfill", append(wrong[:len(wrong)-1:len(wrong)-1], "-p", "2")...)
	wantOutput(t, backfill, 2, "are the two exchanged?", "if it is meant, give --yes")
	untouched("bf-backfill")

	// On a terminal it asks: anything but a yes ends it, and so does ^C.
	for _, c := range []struct {
		answer string
		status int
	}{{"n\n", 2}, {"\n", 2}, {"\x04", 2}, {"\x03", 130}, {"yes\n", 0}} {
		term := newTerminal(t, 80, 20)
		cmd := p.command(t, "bf-stage", wrong...)
		term.onTerminal(t, cmd, "TERM=dumb")
		term.until(t, "\r\nGo on, and delete the target's rows chunk by chunk? [y/N] ")
		untouched("before the answer")
		term.master.WriteString(c.answer)
		cmd.Wait()
		if status := cmd.ProcessState.ExitCode(); status != c.status {
			t.Errorf("answer %q: exit status %d, want %d\n%s", c.answer, status, c.status, term.text(t))
		}
		if c.status != 0 {
			untouched("after the answer")
		}
	}
	p.src.Exec(t, "drop schema __backfill cascade")
	if r := p.run(t, "", "bf-stage", append(wrong, "--yes")...); r.status != 0 {
		t.Errorf("--yes: exit status %d\n%s", r.status, r.stderr)
	}
	// bf-backfill hands it on: the rows of what was given as the target are replaced.
	p.src.Exec(t, "drop schema __backfill cascade")
	backfill = p.script(t, "backfill", append(wrong[:len(wrong)-1:len(wrong)-1], "-p", "2", "--yes")...)
	wantOutput(t, backfill, 0, "chunks are copied and verified")
	p.stage(t, "--until", "2016-01-02")
}

// TestExchangedClone: a target that bf-clone-schema has made holds nothing, whatever its
// chunks are like: the plan says nothing of rows there, and it is not taken for a source.
func TestExchangedClone(t *testing.T) {
	testdb.EachEdge(t, func(t *testing.T, v testdb.Pair) {
		p := newPair(t, v)
		p.src.Exec(t, `create table m (time timestamptz not null, dev int, remark text);
			select create_hypertable('m', 'time', chunk_time_interval => interval '1 day');
			insert into m select t, 1, 'x' from generate_series('2024-01-01Z'::timestamptz, '2024-01-04Z', '1 hour') t`)
		if v.Source.Full {
			p.src.Exec(t, "alter table m set (timescaledb.compress, timescaledb.compress_segmentby = 'dev')")
			p.src.Exec(t, "select compress_chunk(c) from show_chunks('m', older_than => timestamptz '2024-01-03Z') c")
		}
		wantOutput(t, p.clone(t), 0)
		r := p.run(t, "", "bf-stage", "--source", p.source, "--target", p.target, "--until", "2024-01-05", "--dry-run")
		if r.status != 0 || strings.Contains(r.stderr, "with rows in the range") {
			t.Errorf("dry run: exit status %d\n%s", r.status, r.stderr)
		}
		r = p.run(t, "", "bf-stage", "--source", p.target, "--target", p.source, "--until", "2024-01-05")
		if r.status != 2 || !strings.Contains(r.stderr, "are the two exchanged?") {
			t.Errorf("exchanged: exit status %d\n%s", r.status, r.stderr)
		}
		p.stage(t, "--until", "2024-01-05")
		p.copy(t)
		p.same(t, "select * from m")
	})
}

// TestReport: what bf-chunks tells of a backfill afterwards.
func TestReport(t *testing.T) {
	p := newPair(t, newestFull(t))
	p.metrics(t)
	// ≤ 2.11: with compression no constraint can be added or dropped any more
	const fine = "create or replace function fine(timestamptz) returns bool language sql immutable as "
	p.dst.Exec(t, fine+"$$select $1 < '2015-12-31Z' or $1 >= '2016-01-01Z'$$")
	p.dst.Exec(t, "alter table metrics add constraint late check (fine(time))")
	p.both(t, "alter table metrics set (timescaledb.compress, timescaledb.compress_segmentby = 'device')")
	p.src.Exec(t, "select compress_chunk(c) from show_chunks('metrics', older_than => timestamptz '2015-12-30Z') c")
	p.stage(t, "--until", "2016-01-02")
	p.sh(t, `bf-chunks --target "$TARGET" | bf-dump --source "$SOURCE" | bf-load --target "$TARGET"`)
	wants := func(expressions ...string) {
		t.Helper()
		r := p.chunks(t, "--report")
		for _, want := range expressions {
			if !regexp.MustCompile(want).MatchString(r) {
				t.Errorf("%s does not match\n%s", want, r)
			}
		}
	}
	wants(`(?m)^public.metrics\n  copied: \d of 8 chunks, \d+ rows, \S+ .B\n`+
		`  when: \S+ \S+ to \S+ \S+, at work for \d+s, \S+ .B/s\n  how: \d`,
		`(?m)^  failed attempts: \d; of \d chunks the last one failed$`,
		`(?m)^rate over time\n  \S+ \S+  #* +\S+ [kM]?B/s$`,
		`(?m)^failed\n  task \d+, public.metrics _hyper_1_\d+_chunk: \S+ \S+, attempt 1: .*late`,
		`(?m)^left to do before the switch\n  \d chunks? (?:is|are) to be copied: bf-backfill\n`+
			`  \d chunks? (?:is|are) to be compared: bf-verify\n`)
	p.dst.Exec(t, fine+"'select true'")
	p.copy(t)
	p.verify(t, 0)
	wants(`(?m)^  copied: 8 of 8 chunks, `, `(?m)^  compared: 8 equal by --method rows$`,
		`(?m)^left to do before the switch\n  compare what .*\n  schedule the jobs`)
	pictured(t, "bf-chunks", "The report", p.chunks(t, "--report"))
	r := p.chunks(t, "--report", "--json")
	if !strings.Contains(r, `"verified_by":{"rows":8}`) || strings.Count(r, "\n") != 1 {
		t.Errorf("as a record: %s", r)
	}
}
