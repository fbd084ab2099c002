package e2e

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"bf/lib/testdb"
)

// lean runs a command that must succeed in 64 MiB of memory.
func (p *pair) lean(t *testing.T, stdin, name string, args ...string) string {
	t.Helper()
	cmd := p.command(t, name, args...)
	out, err := os.CreateTemp(t.TempDir(), "") // a pipe would hold what it prints in our memory
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	in, err := os.Open(stdin)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	var messages bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, out, &messages
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	peak := peakMemory(cmd.Process.Pid)
	err = cmd.Wait()
	most := peak()
	if t.Logf("%s: %d MiB", name, most>>20); most > 64<<20 {
		t.Errorf("%s took %d MiB, more than 64", name, most>>20)
	}
	if err != nil {
		t.Fatalf("%s: %v\n%.2000s", name, err, messages.Bytes())
	}
	return out.Name()
}

// TestCSVMemory: no command takes more than 64 MiB, with a field of 100 MB, plain or compressed, and
// with 10,000 files that fill one chunk.
func TestCSVMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("moves hundreds of megabytes")
	}
	if _, err := os.Stat("/proc/self/status"); err != nil {
		t.Skip("needs /proc")
	}
	p, dir := csvWorld(t, testdb.Pair{Target: newest(t).Target}, nil)
	p.dst.Exec(t, "alter table m alter note set storage external")
	const length = 100_000_000
	field := "device,time,note\n1,2024-01-01 01:00,\"" + strings.Repeat("q", length) + "\"\n2,2024-01-02 01:00,x\n"
	write(t, filepath.Join(dir, "long.csv"), field)
	write(t, filepath.Join(dir, "long.zst"), zst(t, field))
	many := []string{"10,000 files"}
	for i := range 10_000 {
		many = append(many, fmt.Sprintf("many/%05d.csv", i))
		var s strings.Builder
		s.WriteString("device,time,note\n")
		for k := range 10 {
			fmt.Fprintf(&s, "%d,2024-01-01 %02d:%02d:%02d,%d\n", i, i/3600, i/60%60, i%60, k)
		}
		write(t, filepath.Join(dir, many[i+1]), s.String())
	}
	for _, files := range [][]string{{"plain", "long.csv"}, {"compressed", "long.zst"}, many} {
		t.Run(files[0], func(t *testing.T) {
			p.dst.Exec(t, "drop schema if exists __backfill cascade; truncate m")
			p.lean(t, os.DevNull, "bf-stage", append([]string{"--source", p.source, "--target", p.target, "--into", "m",
				"--from", "2024-01-01", "--until", "2024-01-03"}, files[1:]...)...)
			records := p.lean(t, os.DevNull, "bf-chunks", "--target", p.target)
			stream := p.lean(t, records, "bf-dump", "--source", p.source)
			p.lean(t, stream, "bf-load", "--target", p.target)
			p.lean(t, records, "bf-verify", "--source", p.source, "--target", p.target, "-")
			var got string
			p.dst.Query1(t, &got, "select count(*) || ' ' || count(distinct device) || ' ' || max(length(note)) from m")
			want := fmt.Sprint("2 2 ", length)
			if len(files) > 2 {
				want = "100000 10000 1"
			}
			if got != want {
				t.Errorf("%s rows, devices and bytes; want %s", got, want)
			}
		})
	}
}

// TestCSVDecompressedOnce: each lane decompresses a file at most once, although
// the tasks are many and share its blocks.
func TestCSVDecompressedOnce(t *testing.T) {
	if _, err := os.Stat("/proc/self/io"); err != nil {
		t.Skip("needs /proc/PID/io")
	}
	random := rand.New(rand.NewPCG(1, 2))
	file, _ := lossFile(func(i int) (value, note string) {
		var s strings.Builder
		for range 40 {
			fmt.Fprintf(&s, "%016x", random.Uint64())
		}
		return strconv.Itoa(i), s.String()
	})
	for name, pack := range map[string]func(*testing.T, string) string{"gz": gz, "zst": zst} {
		t.Run(name, func(t *testing.T) {
			packed := pack(t, file)
			p, _ := csvWorld(t, testdb.Pair{Target: testdb.Installs(t)[0]}, map[string]string{"f": packed})
			p.dst.Exec(t, "select set_chunk_time_interval('m', interval '2 hours')")
			for _, lanes := range []int{1, 4} {
				p.dst.Exec(t, "drop schema if exists __backfill cascade")
				if r := p.stageCSV(t, "f"); r.status != 0 {
					t.Fatal(r.stderr)
				}
				// A process is charged with what its children have read.
				r := p.run(t, "", "bash", "-c", fmt.Sprintf(`for i in $(seq %d); do
                    bf-chunks --target "$TARGET" --claim |
                    sh -c 'bf-dump -q --source "$SOURCE"; grep rchar: /proc/$$/io >&2' |
                    bf-load --target "$TARGET" & done; wait`, lanes))
				if r.status != 0 {
					t.Fatal(r.stderr)
				}
				read := 0
				for _, m := range regexp.MustCompile(`rchar: (\d+)`).FindAllStringSubmatch(r.stderr, -1) {
					n, _ := strconv.Atoi(m[1])
					read += n
				}
				const besides = 300_000 // what else a process reads: records, files of the system
				if most := lanes * (len(packed) + besides); read < len(packed) || read > most {
					t.Errorf("%d lanes have read %d bytes of a file of %d", lanes, read, len(packed))
				}
				var n int
				if p.dst.Query1(t, &n, "select count(distinct device) from m"); n != lossRows {
					t.Errorf("%d rows", n)
				}
			}
		})
	}
}

// TestCSVDaily: the files of a week are staged day by day, each backfill ended before the next. The days
// that are in the chunk of the week already stay.
func TestCSVDaily(t *testing.T) {
	p, dir := csvWorld(t, testdb.Pair{Target: testdb.Installs(t)[0]}, nil)
	p.dst.Exec(t, "select set_chunk_time_interval('m', interval '7 days')")
	for day := 1; day <= 7; day++ {
		name := fmt.Sprintf("2024-01-%02d.csv", day)
		write(t, filepath.Join(dir, name), fmt.Sprintf(
			"device,time,note\n%[1]d,2024-01-%02[1]d,x\n%[1]d,2024-01-%02[1]d 23:59:59.999999,y\n", day))
		p.ok(t, "", "bf-stage", "--source", p.source, "--target", p.target, "--into", "m",
			"--from", fmt.Sprintf("2024-01-%02d", day), "--until", fmt.Sprintf("2024-01-%02d", day+1), name)
		if r := p.csvLane(t); r.status != 0 {
			t.Fatal(r.stderr)
		}
		p.ok(t, "", "bf-verify", "--source", p.source, "--target", p.target)
		p.ok(t, "", "bf-clean", "--target", p.target)
	}
	var n, chunks int
	p.dst.Query1(t, &n, "select count(distinct (device, note)) from m")
	p.dst.Query1(t, &chunks, "select count(distinct tableoid) from m")
	if n != 14 || chunks > 2 {
		t.Errorf("%d rows in %d chunks", n, chunks)
	}
}

// TestCSVKey: with a unique key on the target, bf-verify names the rows that differ.
func TestCSVKey(t *testing.T) {
	p, _ := csvWorld(t, testdb.Pair{Target: testdb.Installs(t)[0]}, map[string]string{
		"f.csv": "device,time,value\n1,2024-01-01 01:00,1.50\n2,2024-01-01 01:00,2\n3,2024-01-01 01:00,3\n"})
	p.dst.Exec(t, "create unique index on m (device, time)")
	p.arrives(t, 1, "f.csv")
	p.dst.Exec(t, "update m set value = 1.5 where device = 1; delete from m where device = 3")
	r := p.run(t, "", "bf-verify", "--source", p.source, "--target", p.target, "--all")
	for _, want := range []string{`"key":"(device=1, time=2024-01-01 01:00:00+00)"`, `"source":"1.50","target":"1.5"`,
		`"key":"(device=3, time=2024-01-01 01:00:00+00)","source":"present","target":"absent"`} {
		if r.status != 3 || !strings.Contains(r.stdout, want) {
			t.Errorf("status %d, want %s in\n%s%s", r.status, want, r.stdout, r.stderr)
		}
	}
}
