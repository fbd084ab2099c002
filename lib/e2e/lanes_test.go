package e2e

import (
	"bufio"
	"bytes"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"bf/lib/task"
)

// small is a hypertable with n chunks of a row each.
func small(t testing.TB, p *pair, n int) {
	t.Helper()
	p.both(t, "create table h (t int not null, v int); select create_hypertable('h', 't', chunk_time_interval => 1)")
	p.src.Exec(t, fmt.Sprintf("insert into h select n, n from generate_series(1, %d) n", n))
	p.stage(t, "--until", fmt.Sprint(n+1))
}

// lane is one bf-chunks --claim | bf-dump | bf-load.
type lane struct {
	chunks, dump, load *exec.Cmd
	out, err           bytes.Buffer
	done               chan struct{}
}

// startChunks starts the first process of a lane, and returns what it hands out.
func startChunks(t *testing.T, p *pair) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	chunks := p.command(t, "bf-chunks", "--target", p.target, "--claim")
	out, err := chunks.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := chunks.Start(); err != nil {
		t.Fatal(err)
	}
	return chunks, bufio.NewScanner(out)
}

func startLane(t *testing.T, p *pair) *lane {
	t.Helper()
	l := &lane{done: make(chan struct{})}
	l.chunks = p.command(t, "bf-chunks", "--target", p.target, "--claim")
	l.dump = p.command(t, "bf-dump", "--source", p.source)
	l.load = p.command(t, "bf-load", "--target", p.target, "--quiet")
	var mu sync.Mutex
	stderr := writer(func(b []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return l.err.Write(b)
	})
	l.chunks.Stderr, l.dump.Stderr, l.load.Stderr = stderr, stderr, stderr
	l.load.Stdout = &l.out
	records, err := l.chunks.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	stream, err := l.dump.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	l.dump.Stdin, l.load.Stdin = records, stream
	cmds := []*exec.Cmd{l.chunks, l.dump, l.load}
	for _, c := range cmds {
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
	}
	records.Close() // ours; else a dead reader would go unnoticed
	stream.Close()
	go func() {
		for _, c := range cmds {
			c.Wait()
		}
		close(l.done)
	}()
	return l
}

type writer func([]byte) (int, error)

func (w writer) Write(b []byte) (int, error) { return w(b) }

// wait returns the results of the lane when all of it has ended.
func (l *lane) wait(t *testing.T) []*task.Result {
	t.Helper()
	select {
	case <-l.done:
	case <-time.After(time.Minute):
		for _, c := range []*exec.Cmd{l.chunks, l.dump, l.load} {
			if c.ProcessState == nil {
				t.Errorf("still running: %s", c.Path)
				c.Process.Kill()
			}
		}
		t.Fatalf("the lane does not end: %s", l.err.String())
	}
	return results(t, l.out.String())
}

func (l *lane) status() [3]int {
	return [3]int{l.chunks.ProcessState.ExitCode(), l.dump.ProcessState.ExitCode(), l.load.ProcessState.ExitCode()}
}

// TestLanes has eight lanes share 2,000 small chunks; one of them is killed in
// the middle, one comes later.
func TestLanes(t *testing.T) {
	n := 2000
	if testing.Short() {
		n = 300
	}
	p := newPair(t, newest(t))
	small(t, p, n)
	var lanes []*lane
	for range 7 {
		lanes = append(lanes, startLane(t, p))
	}
	worked := func() (done int) {
		p.dst.Query1(t, &done, "select count(worked) from __backfill.task")
		return done
	}
	for worked() < n/8 {
		time.Sleep(10 * time.Millisecond)
	}
	victim := lanes[0]
	victim.load.Process.Kill()
	late := startLane(t, p)
	lanes = append(lanes[1:], late)

	victim.wait(t) // all of it ends, though nobody told bf-chunks and bf-dump
	seen := map[int64]int{}
	var counts []int
	for i, l := range lanes {
		rs := l.wait(t)
		counts = append(counts, len(rs))
		for _, r := range rs {
			seen[r.Task]++
			if r.Status != task.Loaded {
				t.Errorf("task %d: %s: %s", r.Task, r.Status, r.Message)
			}
		}
		if s := l.status(); s != [3]int{} {
			t.Errorf("lane %d: exit statuses %v: %s", i, s, l.err.String())
		}
	}
	for task, times := range seen {
		if times != 1 {
			t.Errorf("task %d was worked %d times", task, times)
		}
	}
	if got := worked(); got != n {
		t.Errorf("%d of %d tasks worked", got, n)
	}
	p.same(t, "select * from h")
	t.Log("tasks per lane:", counts)
	for _, c := range counts[:len(counts)-1] {
		if fair := n * 7 / 8 / 7; c < fair/2 || c > fair*2 {
			t.Errorf("lanes share unevenly: %v", counts)
			break
		}
	}
	if counts[len(counts)-1] == 0 {
		t.Error("the late lane got nothing")
	}
	var left int
	p.dst.Query1(t, &left, "select count(*) from pg_locks where locktype = 'advisory'")
	if left != 0 {
		t.Errorf("%d advisory locks are left", left)
	}
	// Nothing is pending: a lane ends at once.
	if rs := startLane(t, p).wait(t); len(rs) != 0 {
		t.Errorf("a lane too many did %d tasks", len(rs))
	}
}

// TestLaneEnds checks that a lane ends, and lets go of its tasks, whichever of
// its parts dies while it has nothing to do but wait.
func TestLaneEnds(t *testing.T) {
	for _, part := range []string{"bf-load", "bf-dump", "bf-chunks"} {
		t.Run(part, func(t *testing.T) {
			p := newPair(t, newest(t))
			small(t, p, 3)
			// Somebody holds what is pending, so that the lane waits.
			holder := p.dst.Conn(t)
			if _, err := holder.Exec(t.Context(),
				"select pg_advisory_lock(25190, n) from generate_series(2, 3) n"); err != nil {
				t.Fatal(err)
			}
			l := startLane(t, p)
			for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
				var done int
				p.dst.Query1(t, &done, "select count(worked) from __backfill.task")
				if done == 1 {
					break
				}
				if time.Now().After(deadline) {
					t.Fatal("the first task is not done")
				}
			}
			map[string]*exec.Cmd{"bf-load": l.load, "bf-dump": l.dump,
				"bf-chunks": l.chunks}[part].Process.Signal(syscall.SIGKILL)
			l.wait(t)
			// The others finish.
			if _, err := holder.Exec(t.Context(), "select pg_advisory_unlock_all()"); err != nil {
				t.Fatal(err)
			}
			if rs := startLane(t, p).wait(t); len(rs) != 2 {
				t.Errorf("the next lane did %d tasks, want 2", len(rs))
			}
		})
	}
}

// TestLaneFailures has lanes meet tasks that fail: none is tried for ever, and
// the lanes end.
func TestLaneFailures(t *testing.T) {
	p := newPair(t, newest(t))
	small(t, p, 20)
	p.dst.Exec(t, "alter table h add check (v <> 7)")
	lanes := []*lane{startLane(t, p), startLane(t, p)}
	var failed, loaded int
	for _, l := range lanes {
		for _, r := range l.wait(t) {
			switch r.Status {
			case task.Failed:
				failed++
			case task.Loaded:
				loaded++
			}
		}
		if s := l.status(); s[0] != 0 || s[1] != 0 {
			t.Errorf("exit statuses %v", s)
		}
	}
	if failed < 1 || failed > 2 || loaded != 19 {
		t.Errorf("%d failed, %d loaded", failed, loaded)
	}
	got := p.dst.Rows(t, "select attempts, copy_message from __backfill.task where worked is null")
	if len(got) != 1 || !strings.Contains(got[0][1], "23514") {
		t.Errorf("the failed task: %q", got)
	}
	p.dst.Exec(t, "alter table h drop constraint h_v_check")
	if rs := startLane(t, p).wait(t); len(rs) != 1 || rs[0].Status != task.Loaded {
		t.Errorf("once more: %v", rs)
	}
	p.same(t, "select * from h")
}

// TestLanePassesOver has a task staged anew after a lane has handed it out: the
// load refuses the old record, and the lane still ends.
func TestLanePassesOver(t *testing.T) {
	p := newPair(t, newest(t))
	p.both(t, "create table h (t int not null, v int); select create_hypertable('h', 't', chunk_time_interval => 10)")
	p.src.Exec(t, "insert into h select n, n from generate_series(0, 19) n")
	p.stage(t, "--until", "15")
	chunks, in := startChunks(t, p)
	in.Scan()
	first := in.Text()
	in.Scan()
	p.stage(t, "--until", "20")
	load := p.command(t, "bf-load", "--target", p.target)
	stdin, err := load.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := load.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := stdin.Write([]byte(p.dump(t, first+"\n"+in.Text()))); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- chunks.Wait() }()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(30 * time.Second):
		t.Error("bf-chunks waits for a task that nobody does")
		chunks.Process.Kill()
	}
	stdin.Close()
	if load.Wait() == nil {
		t.Error("bf-load took a record that contradicts the staged one")
	}
	p.copy(t)
	p.same(t, "select * from h")
}

// TestDuplicateWork has several bf-loads do one task at the same time, and one
// find a task taken for long.
func TestDuplicateWork(t *testing.T) {
	t.Parallel() // it waits most of the time
	p := newPair(t, newest(t))
	small(t, p, 1)
	stream := p.dump(t, p.chunks(t))
	p.dst.Exec(t, `create function slow() returns trigger language plpgsql as
        'begin perform pg_sleep(0.5); return new; end';
		create trigger slow before insert on h for each row execute function slow()`)
	var all sync.Map
	var wg sync.WaitGroup
	for i := range 3 {
		wg.Go(func() {
			r := p.run(t, stream, "bf-load", "--target", p.target)
			all.Store(i, r.stdout)
			if r.status != 0 {
				t.Errorf("exit status %d: %s", r.status, r.stderr)
			}
		})
	}
	wg.Wait()
	var loaded, skipped int
	all.Range(func(_, out any) bool {
		loaded += strings.Count(out.(string), `"status":"loaded"`)
		skipped += strings.Count(out.(string), `"status":"skipped"`)
		return true
	})
	if loaded != 1 || skipped != 2 {
		t.Errorf("%d loaded, %d skipped", loaded, skipped)
	}
	p.same(t, "select * from h")

	p.dst.Exec(t, "update __backfill.task set worked = null")
	holder := p.dst.Conn(t)
	for _, sql := range []string{"begin", "select from __backfill.task for no key update"} {
		if _, err := holder.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	r := p.run(t, stream, "bf-load", "--target", p.target)
	if r.status != 1 || !strings.Contains(r.stderr, "another bf-load is at this task") ||
		!strings.Contains(r.stdout, `"status":"skipped"`) {
		t.Errorf("exit status %d, %s%s", r.status, r.stdout, r.stderr)
	}
}
