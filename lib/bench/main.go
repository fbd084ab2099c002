// Command bench measures bf against psql, on the two servers that BF_SOURCE and
// BF_TARGET name, and says where it misses its budget:
//
//	make bench BENCH_ROWS=1000000 BENCH_TIME=2m BENCH_CHUNKS=2000 BENCH_ONLY=REGEX
//
// The variants of a contest take turns, round after round, until BENCH_TIME is
// over; what counts are ratios of their medians. Times alone mean nothing on a
// machine that others use as well; CPU times are the steadier ones.
//
// A table that is no hypertable has three times BENCH_ROWS, one without an index
// twenty times: 1.4 GB by default. TimescaleDB's manual moves such a table, and CSV files,
// by timescaledb-parallel-copy: BENCH_PARALLEL_COPY=PROGRAM has it run. Without it the
// contests have its COPY statements run, of as many lines and over as many connections.
//
// BENCH_PEER=PROGRAM names a timescaledb-backfill: then it copies and verifies the same
// data in the same run, where the names of contests have several chunks.
//
//	make bench BENCH_SCALE=20000
//
// measures instead what each of so many chunks costs (scale.go).
//
//	make bench BENCH_OLD=DIR
//
// answers whether a change has made bf slower: DIR holds the commands of another
// build, which take turns with this one's in every contest.
package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"text/tabwriter"
	"time"
)

func main() {
	b := &bench{sides: sides{records: map[string]string{}}, rows: 1_000_000, chunks: 2000, time: 2 * time.Minute,
		only: regexp.MustCompile("")}
	if err := b.configure(); err != nil {
		fmt.Println("bench:", err)
		return // a measurement never breaks a build
	}
	measured := b.run
	if n := scaled(); n > 0 {
		measured = func() error { return b.scale(n) }
	}
	if err := measured(); err != nil {
		fmt.Println("bench:", err)
	}
	if b.dir != "" {
		os.RemoveAll(b.dir)
	}
}

// bench runs the contests and holds what came of them against the budget.
type bench struct {
	sides
	rows     int // of the large chunk
	chunks   int // of the hypertable with many
	time     time.Duration
	only     *regexp.Regexp
	path     string    // PATH as it was
	old      string    // the directory of another build's commands; "" for none
	wide     bool      // the source has it
	dir      string    // of CSV files
	attaches bool      // a table that is loaded and indexed first becomes the chunk
	read     float64   // times that the tasks of a table without an index read it
	resumed  float64   // seconds from the start of a lane that was killed before to its first chunk
	view     []float64 // its share of the target's CPU time, each time
	budget   []verdict
}

func (b *bench) configure() (err error) {
	for name, n := range map[string]*int{"BENCH_ROWS": &b.rows, "BENCH_CHUNKS": &b.chunks} {
		if s := os.Getenv(name); s != "" {
			if *n, err = strconv.Atoi(s); err != nil || *n < 8000 && name == "BENCH_ROWS" {
				return fmt.Errorf("%s=%s: not a number, or too small", name, s)
			}
		}
	}
	if s := os.Getenv("BENCH_TIME"); s != "" {
		if b.time, err = time.ParseDuration(s); err != nil {
			return err
		}
	}
	if b.only, err = regexp.Compile(os.Getenv("BENCH_ONLY")); err != nil {
		return err
	}
	if b.peer, err = program(); err != nil {
		return err
	}
	if b.src, err = connect(context.Background(), os.Getenv("BF_SOURCE")); err != nil {
		return err
	}
	b.path = os.Getenv("PATH")
	if b.old = os.Getenv("BENCH_OLD"); b.old != "" {
		if b.old, err = filepath.Abs(b.old); err == nil {
			_, err = os.Stat(filepath.Join(b.old, "bf-load"))
		}
		if err != nil {
			return fmt.Errorf("BENCH_OLD: %w", err)
		}
	}
	b.use("")
	b.dst, err = connect(context.Background(), os.Getenv("BF_TARGET"))
	return err
}

// use has all commands come from a directory; "" for this build.
func (b *bench) use(dir string) {
	path := b.path
	if dir != "" {
		path = dir + string(filepath.ListSeparator) + path
	}
	os.Setenv("PATH", path)
	b.env = append(os.Environ(), "SOURCE="+os.Getenv("BF_SOURCE"), "TARGET="+os.Getenv("BF_TARGET"))
}

// contest is a comparison of variants that do the same; the first is the
// baseline.
type contest struct {
	name     string
	variants []*variant
	judge    func(c *contest)
	old      *contest // the same by the other build, without its peers
}

type variant struct {
	name    string
	peer    bool         // not bf
	prepare func() error // not measured
	run     func(m *meter) error
	scale   float64 // of a part to the whole; 0 for all of it
	pipe    int64   // bytes on the pipe, if known
	samples []sample
	failed  error
}

// median of what f takes from the samples; 0 where there are none.
func (v *variant) median(f func(sample) float64) float64 {
	if v == nil || len(v.samples) == 0 {
		return 0
	}
	xs := make([]float64, len(v.samples))
	for i, s := range v.samples {
		xs[i] = f(s)
	}
	slices.Sort(xs)
	return (xs[(len(xs)-1)/2] + xs[len(xs)/2]) / 2
}

func wall(s sample) float64   { return s.wall.Seconds() }
func source(s sample) float64 { return s.source.Seconds() }
func target(s sample) float64 { return s.target.Seconds() }
func client(s sample) float64 { return s.client.Seconds() }

// memory is that of the largest process, in MiB.
func memory(s sample) float64 {
	var most int64
	for _, m := range s.memory {
		most = max(most, m)
	}
	return float64(most) / 1024
}

// peaks are the largest memory that each process of the pipe was seen with.
func (v *variant) peaks() string {
	var most []int64
	for _, s := range v.samples {
		for i, m := range s.memory {
			if i == len(most) {
				most = append(most, 0)
			}
			most[i] = max(most[i], m)
		}
	}
	each := make([]string, len(most))
	for i, m := range most {
		each[i] = fmt.Sprint((m + 512) / 1024)
	}
	return strings.Join(each, ", ")
}

func (b *bench) run() error {
	fmt.Printf("bf against psql, %s\nload before: %s\n", b.describe(), load())
	contests := b.contests()
	if b.old != "" {
		for i, c := range b.contests() {
			contests[i].old = c
		}
	}
	contests = slices.DeleteFunc(contests, func(c *contest) bool { return !b.only.MatchString(c.name) })
	contests = slices.DeleteFunc(contests, func(c *contest) bool {
		fmt.Printf("preparing: %s\n", c.name)
		err := b.data(c.name)
		if err != nil {
			fmt.Printf("left out: %s: %v\n", c.name, err) // as where there is no compression
		}
		return err != nil
	})
	if len(contests) == 0 {
		return errors.New("no contest is left")
	}
	rounds, start := 0, time.Now()
	for {
		begun := time.Now()
		for _, c := range contests {
			b.round(c, rounds%2 == 1)
		}
		rounds++
		fmt.Printf("round %d: %.0fs\n", rounds, time.Since(begun).Seconds())
		if time.Since(start)+time.Since(begun) > b.time {
			break
		}
	}
	for _, c := range contests {
		c.judge(c)
	}
	medians(contests, rounds)
	if b.old != "" {
		compare(contests)
	}
	for _, c := range contests {
		c.failures("")
		if c.old != nil {
			c.old.failures(", old")
		}
	}
	fmt.Println("\nBudget:")
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	for _, v := range b.budget {
		fmt.Fprintf(w, "%s\t%s\t%.3g\tat most %g\n", v.word(), v.row, v.got, v.limit)
	}
	w.Flush()
	fmt.Printf("load after: %s\n", load())
	return nil
}

// round measures each variant of a contest once more, with the other build before
// or after this one.
func (b *bench) round(c *contest, oldFirst bool) {
	old := func(now bool) {
		if c.old == nil || !now {
			return
		}
		b.use(b.old)
		attaches, resumed, view := b.attaches, b.resumed, b.view
		for _, v := range c.old.variants {
			if !v.peer {
				b.once(v)
			}
		}
		b.attaches, b.resumed, b.view = attaches, resumed, view
		b.use("")
	}
	old(oldFirst)
	for _, v := range c.variants {
		b.once(v)
	}
	old(!oldFirst)
}

func (c *contest) failures(build string) {
	for _, v := range c.variants {
		if v.failed != nil {
			fmt.Printf("\n%s, %s%s: %v", c.name, v.name, build, v.failed)
		}
	}
}

// compare prints the medians of this build beside those of the other. A ratio above
// 1 is slower.
func compare(contests []*contest) {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Println("\nThis build against that of BENCH_OLD, medians, seconds.")
	fmt.Fprintln(w, "\twall\told\tratio\tsource CPU\told\tratio\ttarget CPU\told\tratio\tclient CPU\told\tratio\t")
	for _, c := range contests {
		fmt.Fprintf(w, "%s%s\n", c.name, strings.Repeat("\t", 13))
		for i, v := range c.variants {
			if v.peer {
				continue
			}
			fmt.Fprintf(w, "%s\t", v.name)
			for _, f := range []func(sample) float64{wall, source, target, client} {
				old := c.old.variants[i]
				fmt.Fprintf(w, "%.3f\t%.3f\t%s\t", v.median(f), old.median(f), ratio(v, old, f))
			}
			fmt.Fprintln(w)
		}
	}
	w.Flush()
}

// medians prints those of this build.
func medians(contests []*contest, rounds int) {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Printf("\nMedians of %d rounds, seconds; ratio to the first of each contest.\n", rounds)
	fmt.Fprintln(w, "\twall\tratio\tsource CPU\ttarget CPU\tratio\tclient CPU\tratio\tpipe MB\tpeak MiB of each\t")
	for _, c := range contests {
		fmt.Fprintf(w, "%s\t\t\t\t\t\t\t\t\t\t\n", c.name)
		base := c.variants[0]
		for _, v := range c.variants {
			if v.failed != nil {
				fmt.Fprintf(w, "%s\tfailed\t\t\t\t\t\t\t\t\t\n", v.name)
				continue
			}
			pipe := ""
			if v.pipe > 0 {
				pipe = fmt.Sprintf("%.1f", float64(v.pipe)/1e6)
			}
			fmt.Fprintf(w, "%s\t%.3f\t%s\t%.2f\t%.2f\t%s\t%.2f\t%s\t%s\t%s\t\n", v.name, v.median(wall),
				ratio(v, base, wall),
				v.median(source), v.median(target), ratio(v, base, target), v.median(client), ratio(v, base, client),
				pipe, v.peaks())
		}
	}
	w.Flush()
}

// once measures a variant once more, unless it has failed before.
func (b *bench) once(v *variant) {
	if v.failed != nil {
		return
	}
	if v.prepare != nil {
		if v.failed = v.prepare(); v.failed != nil {
			return
		}
	}
	s, err := b.measure(v.run)
	if err != nil {
		v.failed = err
		return
	}
	if v.scale != 0 {
		s = s.times(v.scale)
	}
	v.samples = append(v.samples, s)
}

// verdict is one row of the budget.
type verdict struct {
	row        string
	got, limit float64
}

func (v verdict) word() string {
	switch {
	case v.got == 0:
		return "not measured"
	case v.got <= v.limit:
		return "ok"
	}
	return "MISSED"
}

func (b *bench) check(row string, got, limit float64) {
	b.budget = append(b.budget, verdict{row, got, limit})
}

// over is the ratio of two medians; 0 if one is missing.
func over(v, base *variant, f func(sample) float64) float64 {
	if base.median(f) == 0 {
		return 0
	}
	return v.median(f) / base.median(f)
}

func ratio(v, base *variant, f func(sample) float64) string {
	if r := over(v, base, f); r != 0 {
		return fmt.Sprintf("%.2f", r)
	}
	return ""
}

func (b *bench) describe() string {
	v, err := b.dst.strings(`select 'PostgreSQL ' || current_setting('server_version') || ', TimescaleDB ' || extversion
        || case current_setting('timescaledb.license') when 'timescale' then '' else ' Apache edition' end
        from pg_extension where extname = 'timescaledb'`)
	if err != nil || len(v) == 0 {
		return fmt.Sprint(err)
	}
	return fmt.Sprintf("%s, %d cores, chunk of %d rows", v[0], runtime.NumCPU(), b.rows)
}

func load() string {
	b, _ := os.ReadFile("/proc/loadavg")
	return cmp.Or(strings.TrimSpace(string(b)), "unknown")
}

// lockedBuffer takes what several processes say at the same time.
type lockedBuffer struct {
	b *bytes.Buffer
}

var bufferLock sync.Mutex

func (l *lockedBuffer) Write(p []byte) (int, error) {
	bufferLock.Lock()
	defer bufferLock.Unlock()
	return l.b.Write(p)
}
