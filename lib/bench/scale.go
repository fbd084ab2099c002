package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5"
)

// scale is no contest: it measures what each of very many chunks costs, and what that
// comes to for 100,000 of them.
//
//	make bench BENCH_SCALE=20000
//
// has that many chunks on both sides, but for the newest ones, which are copied.
type scale struct {
	*bench
	out   *tabwriter.Writer
	tasks int // that are staged
}

const (
	copied = 1000    // chunks that are really copied
	asked  = 100_000 // chunks that a migration may have
	// A claim is measured over so many tasks, and of lanes that take a while for each.
	claims    = 3000
	perTask   = 500 * time.Millisecond
	transient = 200 // chunks of a transaction: the default lock table holds no more
)

// scaled reads BENCH_SCALE; 0 for the contests.
func scaled() int {
	n, err := strconv.Atoi(os.Getenv("BENCH_SCALE"))
	if err != nil {
		return 0
	}
	return max(n, 2*copied)
}

func (b *bench) scale(n int) error {
	s := &scale{bench: b, out: tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0), tasks: n}
	fmt.Printf("%d chunks, %s\nload before: %s\n", n, b.describe(), load())
	fmt.Fprintf(s.out, "what\tmeasured\tof %d chunks\n", asked)
	for _, step := range []func() error{s.few, s.fill, s.plan, s.claim, s.resume, s.queries} {
		err := step()
		s.out.Flush()
		if err != nil {
			return err
		}
	}
	fmt.Printf("load after: %s\n", load())
	return nil
}

// each notes what one chunk costs, in seconds.
func (s *scale) each(what string, seconds float64, chunks int) {
	one := seconds / float64(chunks)
	fmt.Fprintf(s.out, "%s\t%.2f ms each\t%.0f s\n", what, one*1000, one*asked)
}

func (s *scale) note(what, format string, args ...any) {
	fmt.Fprintf(s.out, "%s\t%s\t\n", what, fmt.Sprintf(format, args...))
}

func (s *scale) timed(commands ...[]string) (sample, error) {
	return s.measure(func(m *meter) error { return m.pipe("", commands...) })
}

// insert has the server make chunks of one row, of so many days.
func (s *scale) insert(to *server, from, until int) error {
	for i := from; i < until; i += transient {
		if err := to.exec(fmt.Sprintf("insert into scale select timestamptz '1700-01-01' + i * interval '1 day', 1, 1 "+
			"from generate_series(%d, %d) i", i, min(i+transient, until)-1)); err != nil {
			return err
		}
	}
	return nil
}

func (s *scale) tables() error {
	sql := "drop schema if exists __backfill cascade; drop table if exists scale; " +
		table("scale", tinyTable, twoIndexes)
	return errors.Join(s.src.exec(sql), s.dst.exec(sql))
}

// few copies chunks where there are no others.
func (s *scale) few() error {
	if err := s.tables(); err != nil {
		return err
	}
	if err := s.insert(s.src, 0, copied); err != nil {
		return err
	}
	if err := s.stage("scale"); err != nil {
		return err
	}
	return s.copy("where there are no others")
}

// copy copies and verifies what is pending, by two lanes.
func (s *scale) copy(where string) error {
	m, err := s.measure(s.lanes(2))
	if err != nil {
		return err
	}
	s.each("copy of a tiny chunk, two lanes, "+where, m.wall.Seconds(), copied)
	s.each("  of it CPU time of the target", m.target.Seconds(), copied)
	if m, err = s.measure(s.verify); err != nil {
		return err
	}
	s.each("bf-verify of a tiny chunk, one at a time, "+where, m.wall.Seconds(), copied)
	return nil
}

// fill makes the chunks of both sides, those that are to be copied on the source only.
func (s *scale) fill() error {
	if err := s.tables(); err != nil {
		return err
	}
	before, err := s.catalogs()
	if err != nil {
		return err
	}
	start, others := time.Now(), make(chan error, 1)
	go func() { others <- s.insert(s.src, 0, s.tasks) }()
	err = s.insert(s.dst, 0, s.tasks-copied)
	s.each("insert by which the server makes a chunk, on both sides at a time",
		time.Since(start).Seconds(), s.tasks-copied)
	if err = errors.Join(err, <-others); err != nil {
		return err
	}
	after, err := s.catalogs()
	if err != nil {
		return err
	}
	bytes := (after - before) / float64(s.tasks-copied)
	fmt.Fprintf(s.out, "catalogs of the target for a chunk with two indexes\t%.1f kB\t%.0f MB\n", bytes/1e3,
		bytes*asked/1e6)
	const settle = "vacuum analyze pg_class, pg_attribute, pg_depend, pg_index, pg_constraint, pg_inherits, pg_type, " +
		"_timescaledb_catalog.chunk, _timescaledb_catalog.chunk_constraint, _timescaledb_catalog.dimension_slice"
	return errors.Join(s.src.exec(settle), s.dst.exec(settle))
}

// catalogs is the size of the target's catalogs.
func (s *scale) catalogs() (float64, error) {
	return s.number("select sum(pg_total_relation_size(c.oid)) from pg_class c " +
		"where relnamespace in ('pg_catalog'::regnamespace, '_timescaledb_catalog'::regnamespace) and relkind = 'r'")
}

// number asks the target for one.
func (s *scale) number(sql string) (n float64, err error) {
	err = s.dst.conn.QueryRow(context.Background(), "select ("+sql+")::float8").Scan(&n)
	return n, err
}

// plan stages and lists all chunks.
func (s *scale) plan() error {
	for _, step := range []struct {
		what     string
		commands [][]string
	}{
		{"bf-stage", [][]string{s.planner("scale"), {"wc", "-l"}}},
		{"bf-stage again", [][]string{s.planner("scale"), {"wc", "-l"}}},
		{"bf-chunks", [][]string{{"bf-chunks", "--target", s.dst.uri}, {"wc", "-l"}}},
		{"bf-chunks --summary", [][]string{{"bf-chunks", "--target", s.dst.uri, "--summary"}, {"wc", "-l"}}},
	} {
		m, err := s.timed(step.commands...)
		if err != nil {
			return err
		}
		s.each(step.what, m.wall.Seconds(), s.tasks)
		s.note("  its memory", "%d MB", m.memory[0]/1024)
	}
	bytes, err := s.number("select pg_total_relation_size('__backfill.task')")
	fmt.Fprintf(s.out, "__backfill, for each task\t%.0f bytes\t%.0f MB\n", bytes/float64(s.tasks),
		bytes/float64(s.tasks)*asked/1e6)
	return err
}

// claim has lanes take tasks that cost nothing, then such that take a while.
func (s *scale) claim() error {
	for _, c := range []struct {
		lanes, tasks int
		pause        time.Duration
		done         bool // all others are
	}{
		{1, claims, 0, false}, {8, claims, 0, false}, {64, claims, 0, false}, {64, claims, perTask, false},
		{8, claims, 0, true},
	} {
		if err := s.pending(c.done); err != nil {
			return err
		}
		w := &idlers{scale: s, most: c.tasks, pause: c.pause}
		took, err := w.run(c.lanes)
		if err != nil {
			return err
		}
		what := fmt.Sprintf("claims of %d lanes, tasks that take %v", c.lanes, c.pause)
		if c.done {
			what += fmt.Sprintf(", the last %d", s.last())
		}
		slices.Sort(w.waits)
		var all time.Duration
		for _, d := range w.waits {
			all += d
		}
		n := len(w.waits)
		s.note(what, "%.0f tasks a second; a lane waits %.2f ms for the next, median %.2f, 99 of 100 below %.0f; "+
			"%.1f%% of its time", float64(n)/took.Seconds(), 1000*all.Seconds()/float64(n), 1000*w.waits[n/2].Seconds(),
			1000*w.waits[n*99/100].Seconds(), 100*all.Seconds()/(took.Seconds()*float64(c.lanes)))
	}
	return nil
}

// last is how many tasks are left when nearly all are done.
func (s *scale) last() int { return min(2*claims, s.tasks/2) }

// pending makes all tasks pending, or the oldest chunks' only.
func (s *scale) pending(last bool) error {
	sql := "update __backfill.task set worked = null, verified = null where worked is not null; " +
		"vacuum analyze __backfill.task; "
	if last {
		// As lanes do it: row by row, which leaves dead entries in the indexes.
		sql += fmt.Sprintf("update __backfill.task set worked = tstzrange(now(), now()) where priority <= %d",
			s.tasks-s.last())
	}
	for _, one := range strings.Split(sql, "; ") {
		if err := s.dst.exec(one); err != nil {
			return err
		}
	}
	return nil
}

// idlers are lanes that do nothing but to mark their tasks as done.
type idlers struct {
	*scale
	most  int
	pause time.Duration

	mutex sync.Mutex
	waits []time.Duration // for the next task, each time
}

// run has so many lanes at work until the tasks are done, and says how long they took
// once all of them had begun.
func (w *idlers) run(lanes int) (time.Duration, error) {
	var all sync.WaitGroup
	failed := make(chan error, lanes)
	ready, begin := make(chan bool, lanes), make(chan bool)
	for range lanes {
		all.Go(func() { failed <- w.lane(ready, begin) })
	}
	for range lanes {
		<-ready
	}
	start := time.Now()
	close(begin)
	all.Wait()
	took := time.Since(start)
	for range lanes {
		if err := <-failed; err != nil {
			return 0, err
		}
	}
	if len(w.waits) == 0 {
		return 0, errors.New("no lane got a task")
	}
	return took, nil
}

// lane reads what bf-chunks --claim hands out. It says that it is ready when it has its
// first task.
func (w *idlers) lane(ready chan<- bool, begin <-chan bool) error {
	tell := sync.OnceFunc(func() { ready <- true; <-begin })
	defer tell()
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, w.dst.uri)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	cmd := exec.Command("bf-chunks", "--target", w.dst.uri, "--claim")
	cmd.Stderr = io.Discard // that its reader is gone
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return err
	}
	defer func() { out.Close(); _ = cmd.Wait() }()
	lines := bufio.NewReader(out)
	for first := true; ; first = false {
		start := time.Now()
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return nil // no task is left
		}
		if first {
			tell()
		} else if !w.waited(time.Since(start)) {
			return nil
		}
		time.Sleep(w.pause)
		if _, err := conn.Exec(ctx, `update __backfill.task
            set worked = tstzrange(now(), clock_timestamp()), failed = null
            where priority = ($1::text::json->>'task')::bigint`, string(line)); err != nil {
			return err
		}
	}
}

// waited notes how long a lane has waited, and says whether there is more to do.
func (w *idlers) waited(d time.Duration) bool {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	if len(w.waits) < w.most {
		w.waits = append(w.waits, d)
	}
	return len(w.waits) < w.most
}

// resume copies the newest chunks beside all the others.
func (s *scale) resume() error {
	if err := s.dst.exec("update __backfill.task set worked = null where worked is not null"); err != nil {
		return err
	}
	if err := s.dst.exec(fmt.Sprintf("update __backfill.task set worked = tstzrange(now(), now()), "+
		"verified = tstzrange(now(), now()) where priority > %d", copied)); err != nil {
		return err
	}
	cmd := exec.Command("bf-chunks", "--target", s.dst.uri, "--claim")
	out, err := cmd.StdoutPipe()
	start := time.Now()
	if err = errors.Join(err, cmd.Start()); err != nil {
		return err
	}
	_, err = bufio.NewReader(out).ReadString('\n')
	s.note("a lane that is started again has its first task", "after %.0f ms", 1000*time.Since(start).Seconds())
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if err != nil {
		return err
	}
	return s.copy(fmt.Sprintf("beside %d others", s.tasks-copied))
}

// queries has the target plan queries of its own.
func (s *scale) queries() error {
	for _, q := range []struct{ what, sql string }{
		{"a day", "select * from scale where time >= '1750-01-01' and time < '1750-01-02'"},
		{"all chunks", "select count(*) from scale"},
		{"an insert", "insert into scale values ('1750-01-01', 1, 1)"},
	} {
		for _, session := range []string{"in a new session", "again"} {
			if session != "again" { // its caches are empty
				s.dst.conn.Close(context.Background())
				var err error
				if s.dst, err = connect(context.Background(), s.dst.uri); err != nil {
					return err
				}
			}
			var plan []struct {
				Milliseconds float64 `json:"Planning Time"`
			}
			err := s.dst.conn.QueryRow(context.Background(), "explain (summary, format json) "+q.sql,
				pgx.QueryExecModeSimpleProtocol).Scan(&plan)
			if err != nil {
				s.note("planning of "+q.what, "%v", err)
				break
			}
			s.note("planning of "+q.what+", "+session, "%.1f ms", plan[0].Milliseconds)
		}
	}
	return nil
}
