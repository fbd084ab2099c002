package e2e

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"bf/lib/testdb"

	"github.com/klauspost/compress/zstd"
)

// csvWorld is a target with a hypertable of daily chunks, and a directory of files.
func csvWorld(t *testing.T, p testdb.Pair, files map[string]string) (*pair, string) {
	t.Helper()
	dst := testdb.New(t, p.Target, "target")
	dst.Exec(t, `create table m (device int, time timestamptz not null, value numeric, note text);
        select create_hypertable('m', 'time', chunk_time_interval => interval '1 day')`)
	dir := t.TempDir()
	for name, data := range files {
		write(t, filepath.Join(dir, name), data)
	}
	return &pair{dst: dst, target: dst.ConnString, source: "csv:" + dir}, dir
}

func write(t *testing.T, path, data string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
		t.Fatal(err)
	}
}

func gz(t *testing.T, s string) string {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write([]byte(s))
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func zst(t *testing.T, s string) string {
	t.Helper()
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return string(z.EncodeAll([]byte(s), nil))
}

// stageCSV stages files for the first days of 2024.
func (p *pair) stageCSV(t *testing.T, args ...string) result {
	t.Helper()
	return p.run(t, "", "bf-stage", append([]string{"--source", p.source, "--target", p.target,
		"--into", "m", "--from", "2024-01-01", "--until", "2024-01-04 12:00"}, args...)...)
}

func (p *pair) csvLane(t *testing.T) result {
	t.Helper()
	return p.sh(t, `bf-chunks --target "$TARGET" | bf-dump --source "$SOURCE" | bf-load --target "$TARGET"`)
}

// arrives stages files, copies them in a lane and compares them with what they hold.
func (p *pair) arrives(t *testing.T, tasks int, args ...string) {
	t.Helper()
	if r := p.stageCSV(t, args...); r.status != 0 || len(records(t, r.stdout)) != tasks {
		t.Fatalf("bf-stage: %d\n%s%s", r.status, r.stdout, r.stderr)
	}
	if r := p.csvLane(t); r.status != 0 {
		t.Fatalf("lane: %d\n%s", r.status, r.stderr)
	}
	if r := p.run(t, "", "bf-verify", "--source", p.source, "--target", p.target, "--all"); r.status != 0 {
		t.Fatalf("bf-verify: %d\n%s%s", r.status, r.stdout, r.stderr)
	}
}

func (p *pair) rows(t *testing.T, where string) string {
	t.Helper()
	return fmt.Sprint(p.dst.Rows(t, `select to_char(time at time zone 'UTC', 'DD HH24:MI'),
        coalesce(value::text, 'NULL'), coalesce(note, 'NULL') from m where `+where+` order by time`))
}

// TestCSV: the rows of files are in the place of what was there in the slices that
// they have rows of, exactly once; rows beside the range stay. A further file has its slices loaded
// again, as a whole.
func TestCSV(t *testing.T) {
	testdb.EachVersion(t, func(t *testing.T, pair testdb.Pair) {
		p, dir := csvWorld(t, pair, map[string]string{
			"a.csv": "note,time,value\n" +
				"\"a \"\"quoted\"\"\nline\",2024-01-01 00:00:00+00,1.50\n" +
				"\\.,2024-01-01T11:00:00Z,\n\\N,2024-01-02 01:00:00+01,2\n\"\",2024-01-02 02:00:00,NaN\n" +
				"late,2024-01-04 12:00,9\n",
			"sub/b.csv.gz": gz(t, "note,time,value\nx,2024-01-03 00:00,3\n") + gz(t, "y,2024-01-04 11:59,4\n"),
			"c.zst":        zst(t, "note,time,value\nfurther,2024-01-02 05:00,5\n"),
			"copy.csv":     "note,time,value\nfurther,2024-01-02 05:00,5\n",
		})
		p.dst.Exec(t, `insert into m values (1, '2024-01-04 11:00+00', 9, 'dual'),
            (1, '2024-01-04 12:00+00', 9, 'stays'), (1, '2023-12-31 23:59+00', 9, 'stays')`)
		p.arrives(t, 4, "a.csv", filepath.Join(dir, "sub/b.csv.gz"))
		first := "[[01 00:00 1.50 a \"quoted\"\nline] [01 11:00 NULL \\.] [02 00:00 2 \\N] [02 02:00 NaN ] " +
			"[03 00:00 3 x] [04 11:59 4 y]]"
		if got := p.rows(t, "note is distinct from 'stays'"); got != first {
			t.Errorf("rows %s\nwant %s", got, first)
		}
		if got := p.rows(t, "note = 'stays'"); strings.Count(got, "stays") != 2 {
			t.Errorf("beside the range: %s", got)
		}
		if r := p.stageCSV(t, "a.csv", "sub/b.csv.gz"); r.status != 0 || r.stdout != "" {
			t.Errorf("staging again: %d\n%s%s", r.status, r.stdout, r.stderr)
		}
		p.arrives(t, 1, "c.zst")
		if got := p.rows(t, "note = 'further' or note = '\\N'"); got != `[[02 00:00 2 \N] [02 05:00 5 further]]` {
			t.Errorf("a further file: %s", got)
		}
		for _, again := range [][]string{{"a.csv"}, {"c.zst"}, {"a.csv", "c.zst", "sub/../sub/b.csv.gz"}} {
			if r := p.stageCSV(t, again...); r.status != 0 || r.stdout != "" {
				t.Errorf("staging %q again: %d\n%s%s", again, r.status, r.stdout, r.stderr)
			}
		}
		// Files of another directory, of the same names. One that was moved holds the same.
		other := *p
		other.source = "csv:" + t.TempDir()
		write(t, filepath.Join(other.source[4:], "a.csv"), "note,time,value\nelse,2024-01-01 03:00,7\n")
		if r := other.stageCSV(t, "a.csv"); r.status == 0 || !strings.Contains(r.stderr, "another directory, csv:/") {
			t.Errorf("another directory: %d\n%s%s", r.status, r.stdout, r.stderr)
		}
		write(t, filepath.Join(other.source[4:], "a.csv"), "note,time,value\nelse,2023-12-01 03:00,7\n")
		if r := other.stageCSV(t, "--from=2023-12-01", "--until=2023-12-02", "a.csv"); r.status != 0 {
			t.Errorf("another directory for another chunk: %d\n%s", r.status, r.stderr)
		}
		p.dst.Exec(t, "delete from __backfill.task where filter->>'from_text' < '2024'")
		other.source = "csv:" + filepath.Join(t.TempDir(), "moved")
		if err := os.Rename(dir, other.source[4:]); err != nil {
			t.Fatal(err)
		}
		if r := other.stageCSV(t, "a.csv", "c.zst", "sub/b.csv.gz"); r.status != 0 || r.stdout != "" {
			t.Errorf("moved: %d\n%s%s", r.status, r.stdout, r.stderr)
		}
		if err := os.Rename(other.source[4:], dir); err != nil {
			t.Fatal(err)
		}
		p.ok(t, "", "bf-stage", "--source", p.source, "--target", p.target, "--into", "m", "--from", "2024-01-01",
			"--until", "2024-01-04 12:00", "a.csv", "c.zst", "sub/b.csv.gz")
		// The same rows under another name, staged before and at once; another range.
		for want, args := range map[string][]string{
			"copy.csv":  {"copy.csv"},
			"same rows": {"a.csv", "c.zst", "copy.csv"},
			"more than": {"a.csv", "--until=2024-01-02 01:00"},
			"besides":   {"a.csv", "--until=2024-01-05"},
		} {
			if r := p.stageCSV(t, args...); r.status == 0 || !strings.Contains(r.stderr, want) {
				t.Errorf("%q: status %d\n%s", args, r.status, r.stderr)
			}
		}
		// numeric: 1.0 is another value than 1.00
		p.dst.Exec(t, `update m set value = 1.5 where value = 1.50`)
		r := p.run(t, "", "bf-verify", "--source", p.source, "--target", p.target, "--all")
		if r.status != 3 || strings.Count(r.stdout, `"differs"`) != 1 {
			t.Errorf("bf-verify after a change: %d\n%s%s", r.status, r.stdout, r.stderr)
		}
	})
}

// TestCSVDialect: other ways to write CSV, and times without an offset.
func TestCSVDialect(t *testing.T) {
	p, dir := csvWorld(t, testdb.Pair{Target: testdb.Installs(t)[0]}, nil)
	for _, c := range []struct {
		name, data, want string
		args             []string
	}{
		{"semicolons, CR LF, BOM, no end",
			"\ufefftime;note;value\r\n2024-01-01 01:00;'it\\'s';-\r\n2024-01-01 02:00;'-';1",
			"[[01 01:00 NULL it's] [01 02:00 1 -]]", []string{"--delimiter=;", "--quote='", `--escape=\`, "--null=-"}},
		{"tab, no header, left out", "2024-01-01 01:00\tx\t1\tn\r\n", "[[01 01:00 1 n]]",
			[]string{`--delimiter=\t`, "--no-header", "--columns=time,-,value,note"}},
		{"header replaced", "a,b\n2024-01-01 01:00,1\n", "[[01 01:00 1 NULL]]", []string{"--columns=time,value"}},
		{"latin1", "time,note\n2024-01-01 01:00,Z\xfcrich\n", "[[01 01:00 NULL Zürich]]",
			[]string{"--encoding=latin1"}},
		{"zone", "time,note\n2024-01-01 01:30,x\n", "[[01 00:30 NULL x]]", []string{"--zone=Europe/Berlin"}},
		{"epoch", "time,note\n1704070800000,x\n", "[[01 01:00 NULL x]]", []string{"--time-unit=ms"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			write(t, filepath.Join(dir, "f.csv"), c.data)
			p.arrives(t, 1, append(c.args, "f.csv")...)
			if got := p.rows(t, "true"); got != c.want {
				t.Errorf("rows %s\nwant %s", got, c.want)
			}
			p.ok(t, "", "bf-clean", "--target", p.target)
			p.dst.Exec(t, "truncate m")
		})
	}
}

// TestCSVBad: what is wrong with files is listed, all of it, with file and line, and nothing
// is staged; with --reject the rest arrives.
func TestCSVBad(t *testing.T) {
	p, dir := csvWorld(t, testdb.Pair{Target: testdb.Installs(t)[0]}, map[string]string{
		"bad.csv": "time,note\n2024-01-01 01:00,\"two\nlines\"\n2024-01-01 02:00\n2024-01-01 03:00,x,y\n" +
			"2024-02-30,x\n2024-01-01 00:00:00.0000001,x\n2024-01-01 05:00,Z\xfcrich\n" +
			"2024-01-01 06:00,a\x00b\n,x\n2024-01-01 07:00,ok\n",
		"cut.csv.gz":   gz(t, "time,note\n"+strings.Repeat("2024-01-01 01:00,x\n", 50))[:50],
		"open.csv":     "time,note\n2024-01-01 01:00,\"x\n",
		"plain.csv.gz": "time,note\n2024-01-01 01:00,x\n",
		"notime.csv":   "note\nx\n",
		"other.csv":    "note,time\nx,2024-01-01\n",
		"what.csv":     "time,nonsense\n",
		"empty.csv":    "",
		"utf8.csv":     "time,note\n2024-01-01 01:00,\u20ac\n",
	})
	all := p.stageCSV(t, "bad.csv", "cut.csv.gz", "open.csv", "notime.csv", "other.csv", "what.csv", "empty.csv",
		"no.csv", "../x", ".")
	for _, want := range []string{"bad.csv:4: 1 fields", "bad.csv:5: 3 fields",
		"bad.csv:6, column time", "bad.csv:7, column time",
		"bad.csv:8, column note: byte 0xfc", "bad.csv:9, column note: a NUL byte", "bad.csv:10, column time: no time",
		"cut.csv.gz", "truncated", "open.csv:2, column note: a quote is opened", "notime.csv:1: no column time",
		"other.csv:1: other columns than bad.csv", "what.csv:1, column 2", "empty.csv: is empty",
		"no.csv: no such file", "../x: path escapes", ".: is no file", "16 records or files are bad"} {
		if !strings.Contains(all.stderr, want) {
			t.Errorf("not said: %s", want)
		}
	}
	if all.status != 1 || all.stdout != "" {
		t.Errorf("status %d\n%s%s", all.status, all.stdout, all.stderr)
	}
	var staged int
	p.dst.Query1(t, &staged, "select count(*) from pg_namespace where nspname = '__backfill'")
	if staged != 0 {
		t.Error("something is staged")
	}
	r := p.stageCSV(t, "utf8.csv", "--encoding=latin1")
	if r.status != 1 || !strings.Contains(r.stderr, "0x82 is no character") {
		t.Errorf("latin1: status %d\n%s", r.status, r.stderr)
	}
	rejected := filepath.Join(t.TempDir(), "rejected")
	p.arrives(t, 1, "bad.csv", "plain.csv.gz", "--reject", rejected)
	if got := p.rows(t, "true"); got != "[[01 01:00 NULL two\nlines] [01 01:00 NULL x] [01 07:00 NULL ok]]" &&
		got != "[[01 01:00 NULL x] [01 01:00 NULL two\nlines] [01 07:00 NULL ok]]" {
		t.Errorf("rows %s", got)
	}
	b, err := os.ReadFile(rejected)
	if err != nil || strings.Count(string(b), dir) != 0 || strings.Count(string(b), "bad.csv:") != 7 ||
		!strings.Contains(string(b), "\n2024-01-01 05:00,Z\xfcrich\n") {
		t.Errorf("rejected: %s (%v)", b, err)
	}
}

// TestCSVChanged: a file that is not what was staged is refused, each time, and nothing outside
// of the directory is ever read, whatever a record says.
func TestCSVChanged(t *testing.T) {
	data := "time,note\n2024-01-01 01:00,x\n2024-01-01 02:00,y\n2024-01-02 02:00,z"
	p, dir := csvWorld(t, testdb.Pair{Target: testdb.Installs(t)[0]},
		map[string]string{"f.csv": data, "g.csv": data})
	outside := filepath.Join(t.TempDir(), "f.csv")
	write(t, outside, data)
	p.dst.Exec(t, `insert into m values (1, '2024-01-01 11:00+00', 9, 'before'),
        (1, '2024-01-02 11:00+00', 9, 'before')`)
	recs := p.stageCSV(t, "f.csv")
	if recs.status != 0 || strings.Count(recs.stdout, "\n") != 2 {
		t.Fatal(recs.stdout, recs.stderr)
	}
	f := filepath.Join(dir, "f.csv")
	same := func(path string) func() { return func() { write(t, path, data) } }
	for name, c := range map[string]struct {
		change func()
		record [2]string
		want   string
	}{
		"a byte": {func() { write(t, f, strings.Replace(data, ",y", ",Y", 1)) }, [2]string{},
			"changed since it was staged"},
		"truncated":      {func() { write(t, f, data[:30]) }, [2]string{}, "changed since it was staged"},
		"goes on":        {func() { write(t, f, data+"z") }, [2]string{}, "changed since it was staged"},
		"gone":           {func() { os.Remove(f) }, [2]string{}, "no such file"},
		"compressed now": {func() { write(t, f, gz(t, data)) }, [2]string{}, "compressed in another way"},
		"link outside":   {func() { os.Remove(f); _ = os.Symlink(outside, f) }, [2]string{}, "escapes"},
		"FIFO":           {func() { os.Remove(f); _ = syscall.Mkfifo(f, 0o644) }, [2]string{}, "is no file"},
		"directory":      {func() { os.Remove(f); _ = os.Mkdir(f, 0o755) }, [2]string{}, "is no file"},
		"../": {same(f), [2]string{`"path":"f.csv"`, `"path":"../` + filepath.Base(dir) + `/f.csv"`},
			"escapes"},
		"absolute": {same(f), [2]string{`"path":"f.csv"`, `"path":"` + outside + `"`}, "escapes"},
		"a command": {same(f), [2]string{`"path":"f.csv"`, `"path":"exec:touch /tmp/bf-csv-test-x"`},
			"no such file"},
		"block":      {same(f), [2]string{`"10:`, `"11:`}, "changed since"},
		"negative":   {same(f), [2]string{`"10:`, `"-10:`}, "not offset:length:line:crc"},
		"huge":       {same(f), [2]string{`"10:`, `"10:922337203685477`}, "changed since"},
		"rows":       {same(f), [2]string{`"rows":"2"`, `"rows":"7"`}, "2 rows of the range, 7 when it was staged"},
		"other file": {same(f), [2]string{`"path":"f.csv"`, `"path":"g.csv"`}, "contradicts the staged task"},
		"a chunk":    {same(f), [2]string{`"kind":"csv"`, `"kind":"exec"`}, "was not staged from one"},
	} {
		t.Run(name, func(t *testing.T) {
			os.RemoveAll(f)
			write(t, f, data)
			if c.change(); c.record[0] != "" && !strings.Contains(recs.stdout, c.record[0]) {
				t.Fatalf("no %s in %s", c.record[0], recs.stdout)
			}
			input := recs.stdout
			if c.record[0] != "" {
				input = strings.ReplaceAll(input, c.record[0], c.record[1])
			}
			r := p.run(t, input, "sh", "-c", `timeout 20 bf-dump --source "$SOURCE" | bf-load --target "$TARGET"`)
			if r.status == 0 || !strings.Contains(r.stderr, c.want) {
				t.Errorf("status %d, want %q in\n%s", r.status, c.want, r.stderr)
			}
			var n int
			p.dst.Query1(t, &n, "select count(*) from m where note = 'before' and time < '2024-01-02'")
			if n != 1 {
				t.Error("the target has changed")
			}
		})
	}
	os.RemoveAll(f)
	write(t, f, data)
	other := testdb.New(t, testdb.Installs(t)[0], "other")
	for source, want := range map[string]string{
		other.ConnString: "cannot be read by kind", "exec:echo": "was not staged from one"} {
		r := p.run(t, recs.stdout, "bf-dump", "--source", source)
		if r.status != 1 || !strings.Contains(r.stderr, want) {
			t.Errorf("%s: status %d\n%s", source, r.status, r.stderr)
		}
	}
	write(t, f, data+"\n2024-01-03 01:00,appended\n") // is staged when bf-stage runs again
	p.arrives(t, 3, "f.csv")
	if got := p.rows(t, "true"); strings.Count(got, "[") != 5 || !strings.Contains(got, "appended") {
		t.Errorf("rows %s", got)
	}
}

// TestCSVValue: a value that its column does not take fails its task, with file, line, column
// and value; the others are done.
func TestCSVValue(t *testing.T) {
	var s strings.Builder
	s.WriteString("time,note,value\n")
	for i := range 5000 {
		fmt.Fprintf(&s, "2024-01-0%d 01:00,\"two\nlines\",%d\n", 1+i%3, i)
	}
	good := s.String()
	s.WriteString("2024-01-01 02:00,x,oops\n2024-01-02 03:00,x,1\n")
	p, dir := csvWorld(t, testdb.Pair{Target: testdb.Installs(t)[0]}, map[string]string{"f.csv": s.String()})
	if r := p.stageCSV(t, "f.csv"); r.status != 0 {
		t.Fatal(r.stderr)
	}
	r := p.csvLane(t)
	for _, want := range []string{"22P02", "oops", "column value", "f.csv:10002"} {
		if r.status != 1 || !strings.Contains(r.stderr, want) {
			t.Errorf("status %d, want %q in\n%s", r.status, want, r.stderr)
		}
	}
	var done int
	p.dst.Query1(t, &done, "select count(*) from __backfill.task where worked is not null")
	if done != 2 {
		t.Errorf("%d tasks are done", done)
	}
	write(t, filepath.Join(dir, "f.csv"), good)
	if r := p.csvLane(t); r.status != 1 || !strings.Contains(r.stderr, "changed since it was staged") {
		t.Errorf("after fixing the file: %d\n%s", r.status, r.stderr)
	}
	p.arrives(t, 3, "f.csv")
	var n int
	p.dst.Query1(t, &n, "select count(*) from m")
	if n != 5000 {
		t.Errorf("%d rows", n)
	}
}

// TestCSVBlocks: files of several blocks, compressed or not, in several lanes that are killed:
// each row arrives once, also those whose quoted line end is at a block's.
func TestCSVBlocks(t *testing.T) {
	var plain, zipped, devices strings.Builder
	begin := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, b := range []*strings.Builder{&plain, &zipped, &devices} {
		b.WriteString("device,time,note\n")
	}
	for i := range 60000 {
		at := begin.Add(time.Duration(i) * 4 * time.Second).Format(time.RFC3339)
		fmt.Fprintf(&plain, "1,%s,\"%d\n%s\"\n", at, i, strings.Repeat("\n", 60+i%40))
		fmt.Fprintf(&zipped, "2,%s,%060d\n", at, i)
	}
	p, dir := csvWorld(t, testdb.Pair{Target: testdb.Installs(t)[0]},
		map[string]string{"a.csv": plain.String(), "b.gz": gz(t, zipped.String())})
	if r := p.stageCSV(t, "a.csv", "b.gz"); r.status != 0 {
		t.Fatal(r.stderr)
	}
	for i := range 3 { // killed at some point, with another parallelism each time
		p.run(t, "", "bash", "-c", fmt.Sprintf(`for i in $(seq %d); do
            (bf-chunks --target "$TARGET" --claim | timeout -s KILL 0.%d bf-dump --source "$SOURCE" |
                bf-load --target "$TARGET") & done; wait`, 1+i, 2+i))
	}
	if r := p.csvLane(t); r.status != 0 {
		t.Fatal(r.stderr)
	}
	p.arrives(t, 0, "a.csv", "b.gz")
	var got string
	p.dst.Query1(t, &got, `select string_agg(n || ' ' || lo || ' ' || hi || ' ' || d, ', ' order by d) from (
        select count(*) n, device d, min(split_part(note, E'\n', 1)::int) lo, max(split_part(note, E'\n', 1)::int) hi
        from m group by 2) _`)
	if want := "60000 0 59999 1, 60000 0 59999 2"; got != want {
		t.Errorf("rows %s, want %s", got, want)
	}
	// A file per device, each with all times: in no order over all chunks.
	var many []string
	p.dst.Exec(t, "select set_chunk_time_interval('m', interval '1 hour'); drop schema __backfill cascade; truncate m")
	for d := range 40 {
		var s strings.Builder
		s.WriteString("device,time,note\n")
		for i := range 84 {
			fmt.Fprintf(&s, "%d,%s,%0300d\n", d, begin.Add(time.Duration(i)*time.Hour).Format(time.RFC3339), i)
		}
		many = append(many, fmt.Sprintf("d%d.csv", d))
		write(t, filepath.Join(dir, many[d]), s.String())
	}
	if r := p.stageCSV(t, many...); r.status != 2 || !strings.Contains(r.stderr, "read 84 times") || r.stdout != "" {
		t.Errorf("in no order: %d\n%s", r.status, r.stderr)
	}
	if r := p.stageCSV(t, append(many, "--scan=any", "--dry-run")...); r.status != 0 {
		t.Errorf("--scan any: %d\n%s", r.status, r.stderr)
	}
	var ordered strings.Builder // the same rows by time
	ordered.WriteString("device,time,note\n")
	for i := range 84 * len(many) {
		fmt.Fprintf(&ordered, "%d,%s,%0300d\n", i%len(many),
			begin.Add(time.Duration(i/len(many))*time.Hour).Format(time.RFC3339), i)
	}
	write(t, filepath.Join(dir, "ordered.csv"), ordered.String())
	r := p.stageCSV(t, "ordered.csv", "--dry-run")
	if n := strings.Count(r.stdout, `"kind":"csv"`); r.status != 0 || n != 84 {
		t.Errorf("in the order of time: %d, %d tasks\n%s", r.status, n, r.stderr)
	}
}

// TestCSVUsage: what does not go together is said before anything is done.
func TestCSVUsage(t *testing.T) {
	p, _ := csvWorld(t, testdb.Pair{Target: testdb.Installs(t)[0]}, map[string]string{"f.csv": "time\n"})
	into := func(more ...string) []string { return append([]string{"--into", "m", "--from", "2024-01-01"}, more...) }
	for want, c := range map[string]struct {
		source string
		args   []string
	}{
		"--from is required":   {p.source, []string{"--into", "m", "f.csv"}},
		"names of files":       {p.source, into()},
		"do not go with CSV":   {p.source, into("--snapshot", "x", "f.csv")},
		"source that is CSV":   {"dbname=x", []string{"f.csv"}},
		"do not go with a com": {"exec:x", into("f.csv")},
		"there twice":          {p.source, into("f.csv", "./f.csv")},
	} {
		args := append([]string{"--source", c.source, "--target", p.target, "--until", "2024-01-02"}, c.args...)
		r := p.run(t, "", "bf-stage", args...)
		if r.status != 2 || r.stdout != "" || !strings.Contains(r.stderr, want) {
			t.Errorf("%q: status %d\n%s", args, r.status, r.stderr)
		}
	}
}

// TestCSVExample runs the example of bf-csv(7).
func TestCSVExample(t *testing.T) {
	p, _ := csvWorld(t, testdb.Pair{Target: testdb.Installs(t)[0]}, nil)
	p.dst.Exec(t, "alter table m rename to metrics")
	for _, page := range pages(t) {
		if page.name != "bf-csv" {
			continue
		}
		m := regexp.MustCompile(`(?m)^\.\\" executed: .*\n\.Bd -literal\n((?s:.*?))^\.Ed$`).
			FindStringSubmatch(page.source)
		cmd := p.command(t, "sh", "-ec", text(t, m[1]))
		cmd.Dir = t.TempDir()
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	var n int
	p.dst.Query1(t, &n, "select count(*) from metrics, "+
		"(select count(*) n from __backfill.task where verified is not null) v where v.n = 3")
	if n != 3 {
		t.Errorf("%d rows", n)
	}
}

// TestCSVBackfill: bf-backfill passes the files on, and needs no more than the directory.
func TestCSVBackfill(t *testing.T) {
	p, dir := csvWorld(t, testdb.Pair{Target: testdb.Installs(t)[0]}, map[string]string{
		"a b.csv": "2024-01-01 01:00;x\n", "c.csv": "2024-01-02 01:00;y\n"})
	cmd := p.script(t, "backfill", "--source", "csv:"+dir, "--target", p.target, "--into", "m",
		"--from=2024-01-01", "--until", "2024-01-03", "--no-header", "--columns", "time,note", "--delimiter", ";",
		"a b.csv", "c.csv")
	out, err := cmd.CombinedOutput()
	if got := p.rows(t, "true"); err != nil || got != "[[01 01:00 NULL x] [02 01:00 NULL y]]" {
		t.Errorf("rows %s, %v\n%s", got, err, out)
	}
}
