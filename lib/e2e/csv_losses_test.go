package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"bf/lib/testdb"
)

const lossRows = 20_000

// lossTime is the time of a row: 10 seconds apart, in three chunks of a day.
func lossTime(i int) string {
	return time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(i) * 10 * time.Second).Format(time.RFC3339)
}

// lossFile is a file of rows whose values and notes are as f says, and the rows as holds
// compares them.
func lossFile(f func(i int) (value, note string)) (file string, rows []string) {
	var s strings.Builder
	s.WriteString("device,time,value,note\n")
	for i := range lossRows {
		value, note := f(i)
		fmt.Fprintf(&s, "%d,%s,%s,\"%s\"\n", i, lossTime(i), value, strings.ReplaceAll(note, `"`, `""`))
		rows = append(rows, fmt.Sprintf("%d|%s|%s|%s", i, lossTime(i), value, note))
	}
	return s.String(), rows
}

// holds says how the rows of the target differ from those wanted: exactly these, each once.
func (p *pair) holds(t *testing.T, want []string) {
	t.Helper()
	diff(t, "rows", sortedStrings(slices.Clone(want)), sorted(t, p.dst, `select device || '|' ||
        to_char(time at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') || '|' || value || '|' || note from m`))
}

func plainValues(i int) (value, note string) { return strconv.Itoa(i), "note " + strconv.Itoa(i) }

// TestLosses: what copying CSV by client tools loses or doubles, with exit status 0, in six ways
// that were measured. bf either copies all of it or fails, and loses nothing.
func TestLosses(t *testing.T) {
	testdb.EachEdge(t, func(t *testing.T, pair testdb.Pair) {
		for name, lose := range map[string]func(*testing.T, *pairOfFile){
			"resumed with another parallelism":        loseByResuming,
			"the file changes between two runs":       loseByChanging,
			"a line with the end-of-data mark":        loseByEndMark,
			"a byte of another encoding":              loseByEncoding,
			"the producer is cut at a line's end":     loseByCut,
			"one value that its column does not take": loseByValue,
		} {
			t.Run(name, func(t *testing.T) {
				p, dir := csvWorld(t, pair, nil)
				p.dst.Exec(t, `insert into m values (-1, '2024-01-02 11:00+00', 9, 'before')`)
				lose(t, &pairOfFile{p, filepath.Join(dir, "f.csv")})
			})
		}
	})
}

// pairOfFile is a target and a file of the source.
type pairOfFile struct {
	*pair
	file string
}

var before = []string{"-1|2024-01-02T11:00:00Z|9|before"}

func (p *pairOfFile) staged(t *testing.T, file string, args ...string) {
	t.Helper()
	write(t, p.file, file)
	if r := p.stageCSV(t, append(args, "f.csv")...); r.status != 0 {
		t.Fatalf("bf-stage: %d\n%s", r.status, r.stderr)
	}
}

func (p *pairOfFile) verified(t *testing.T, want []string) {
	t.Helper()
	p.holds(t, want)
	if r := p.run(t, "", "bf-verify", "--source", p.source, "--target", p.target, "--all"); r.status != 0 {
		t.Errorf("bf-verify: %d\n%s%s", r.status, r.stdout, r.stderr)
	}
}

// A tool that keys its batches by line numbers loses or doubles rows when it goes on with other
// batches: 15,000 or 25,000 of 20,000.
func loseByResuming(t *testing.T, p *pairOfFile) {
	file, rows := lossFile(plainValues)
	p.staged(t, file)
	cut := p.sh(t, `bf-chunks --target "$TARGET" | bf-dump --source "$SOURCE" | head -c 600000 |
        bf-load --target "$TARGET"`)
	var done int
	p.dst.Query1(t, &done, "select count(*) from __backfill.task where worked is not null")
	if cut.status == 0 || done == 0 || done == 3 {
		t.Fatalf("status %d, %d tasks are done\n%s", cut.status, done, cut.stderr)
	}
	r := p.sh(t, `bf-chunks --target "$TARGET" | xargs -r -P2 -d '\n' -n1 sh -c '
        bf-dump --source "$SOURCE" --compress s2 "$1" | bf-load --target "$TARGET"' _`)
	if r.status != 0 {
		t.Errorf("resumed: %d\n%s", r.status, r.stderr)
	}
	p.verified(t, rows)
}

// A file of another content under the same name: one row lost, one doubled.
func loseByChanging(t *testing.T, p *pairOfFile) {
	file, rows := lossFile(plainValues)
	p.staged(t, file)
	if r := p.sh(t, `bf-chunks --target "$TARGET" | head -n 1 | bf-dump --source "$SOURCE" |
        bf-load --target "$TARGET"`); r.status != 0 {
		t.Fatal(r.stderr)
	}
	changed := strings.Replace(file, lossTime(19_000), lossTime(3_000), 1)
	write(t, p.file, changed)
	if r := p.csvLane(t); r.status == 0 || !strings.Contains(r.stderr, "changed since it was staged") {
		t.Errorf("status %d\n%s", r.status, r.stderr)
	}
	p.staged(t, changed)
	if r := p.csvLane(t); r.status != 0 {
		t.Error(r.stderr)
	}
	rows[19_000] = strings.Replace(rows[19_000], lossTime(19_000), lossTime(3_000), 1)
	p.verified(t, rows)
}

// COPY up to PostgreSQL 17 takes a line \. for the end of the data: 4,899 of 20,000 rows are lost,
// 19,900 by psql.
func loseByEndMark(t *testing.T, p *pairOfFile) {
	file, rows := lossFile(func(i int) (value, note string) {
		if i%5000 == 100 {
			return strconv.Itoa(i), "a\n\\.\nb"
		}
		return plainValues(i)
	})
	p.staged(t, file)
	if r := p.csvLane(t); r.status != 0 {
		t.Error(r.stderr)
	}
	p.verified(t, rows)
}

// A tool that falls back to Windows-1252 at the first bad byte stores Zürich as ZÃ¼rich.
func loseByEncoding(t *testing.T, p *pairOfFile) {
	file, rows := lossFile(func(i int) (value, note string) { return strconv.Itoa(i), "Zürich" })
	line := strings.Index(file, "\n12000,")
	file = file[:line] + strings.Replace(file[line:], "Zürich", "Z\xfcrich", 1)
	write(t, p.file, file)
	r := p.stageCSV(t, "f.csv")
	if r.status != 1 || !strings.Contains(r.stderr, "f.csv:12002, column note: byte 0xfc") {
		t.Errorf("status %d\n%s", r.status, r.stderr)
	}
	p.holds(t, before)
	rejected := filepath.Join(t.TempDir(), "rejected")
	p.staged(t, file, "--reject", rejected)
	if r := p.csvLane(t); r.status != 0 {
		t.Error(r.stderr)
	}
	p.verified(t, slices.Delete(rows, 12_000, 12_001))
	b, err := os.ReadFile(rejected)
	if err != nil || !strings.Contains(string(b), "\n12000,") || strings.Count(string(b), "\n") != 2 {
		t.Errorf("rejected: %s, %v", b, err)
	}
}

// A producer that ends early, at a line's end: 7,000 of 20,000 rows are taken for all.
func loseByCut(t *testing.T, p *pairOfFile) {
	file, rows := lossFile(plainValues)
	write(t, p.file, file)
	export := func(end string) string {
		return fmt.Sprintf(`head -n 1 %[1]s; grep ",${BF_FROM%%%% *}T" %[1]s %[2]s`, p.file, end)
	}
	cut := export(`| head -n 2500; kill -PIPE $$`)
	if r := p.run(t, "", "bf-stage", "--source", "exec:"+cut, "--target", p.target, "--into", "m",
		"--from", "2024-01-01", "--until", "2024-01-04"); r.status != 0 {
		t.Fatal(r.stderr)
	}
	lane := `bf-chunks --target "$TARGET" | bf-dump --source "exec:$0" | bf-load --target "$TARGET"`
	r := p.run(t, "", "sh", "-c", lane, cut)
	if r.status == 0 || !strings.Contains(r.stderr, "was ended by signal 13") {
		t.Errorf("status %d\n%s", r.status, r.stderr)
	}
	p.holds(t, before)
	whole := export("")
	if r := p.run(t, "", "sh", "-c", lane, whole); r.status != 0 {
		t.Error(r.stderr)
	}
	p.source = "exec:" + whole
	p.verified(t, rows)
}

// One bad value, left out with its batch: 5,000 rows are lost.
func loseByValue(t *testing.T, p *pairOfFile) {
	file, rows := lossFile(plainValues)
	p.staged(t, strings.Replace(file, "Z,12000,", "Z,oops,", 1))
	for r, i := p.csvLane(t), 0; i < 2; i++ {
		if want := []string{"f.csv:12002", "oops"}[i]; r.status == 0 || !strings.Contains(r.stderr, want) {
			t.Errorf("status %d, want %s in\n%s", r.status, want, r.stderr)
		}
	}
	const day = 8640
	p.holds(t, slices.Concat(rows[:day], before, rows[2*day:])) // the chunk in between is as it was
	p.staged(t, file)
	if r := p.csvLane(t); r.status != 0 {
		t.Error(r.stderr)
	}
	p.verified(t, rows)
}

// TestKilledAndResumed: lanes are killed after every tenth task, and go on in another number.
// In the end each row is there once, of files and of a command.
func TestKilledAndResumed(t *testing.T) {
	const tasks = 55 // of an hour each
	file, rows := lossFile(plainValues)
	files := map[string]string{"f.gz": gz(t, file), "f.csv": file}
	p, dir := csvWorld(t, testdb.Pair{Target: testdb.Installs(t)[0]}, files)
	command := fmt.Sprintf(`exec:head -n 1 %[1]s
        day=${BF_FROM%%%% *}; hour=${BF_FROM#* }; grep ",${day}T${hour%%%%:*}:" %[1]s`,
		filepath.Join(dir, "f.csv"))
	for _, source := range []string{p.source, command} {
		t.Run(source[:4], func(t *testing.T) {
			p.dst.Exec(t, `drop schema if exists __backfill cascade; truncate m;
                select set_chunk_time_interval('m', interval '1 hour')`)
			p.source = source
			args := []string{"--source", source, "--target", p.target, "--into", "m",
				"--from", "2024-01-01", "--until", "2024-01-03 07:00"}
			if source != command {
				args = append(args, "f.gz")
			}
			p.ok(t, "", "bf-stage", args...)
			killed := 0
			for killed < 50 && p.killAfter(t, 10, 1+killed%3) {
				killed++
			}
			if killed < 3 {
				t.Errorf("lanes were killed %d times", killed)
			}
			p.holds(t, rows[:tasks*360])
			r := p.run(t, "", "bf-verify", "--source", source, "--target", p.target)
			if r.status != 0 || strings.Count(r.stdout, `"verified"`) != tasks {
				t.Errorf("bf-verify: %d, %d\n%s", r.status, strings.Count(r.stdout, `"verified"`), r.stderr)
			}
		})
	}
}

// killAfter runs so many lanes and kills all of their processes when so many more tasks are done. It
// says whether there is more to do.
func (p *pair) killAfter(t *testing.T, tasks, lanes int) bool {
	t.Helper()
	done := func() (n, all int) {
		p.dst.Query1(t, &n, "select count(worked) from __backfill.task")
		p.dst.Query1(t, &all, "select count(*) from __backfill.task")
		return n, all
	}
	begin, all := done()
	cmd := p.command(t, "bash", "-c", fmt.Sprintf(`for i in $(seq %d); do
        bf-chunks --target "$TARGET" --claim | bf-dump --source "$SOURCE" | bf-load --target "$TARGET" &
        done; wait`, lanes))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for n := begin; n < begin+tasks && n < all; n, _ = done() {
		select {
		case <-ended: // a task of those that were killed before may still have been held
			n, _ := done()
			return n < all
		case <-time.After(3 * time.Millisecond):
		}
	}
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	<-ended
	n, _ := done()
	return n < all
}
