package chaos

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"bf/lib/testdb"
)

// slow is a backfill whose chunks take more than half a second each on the target.
type slow struct {
	t              testing.TB
	source, target *testdb.DB
	env            []string
}

const slowRows = 20

func newSlow(t *testing.T) *slow {
	testdb.Path(t)
	in := testdb.Installs(t)[0]
	s := &slow{t: t, source: testdb.New(t, in, "source"), target: testdb.New(t, in, "target")}
	scripts, err := filepath.Abs("../../scripts")
	if err != nil {
		t.Fatal(err)
	}
	s.env = []string{"BF_SOURCE=" + s.source.ConnString, "BF_TARGET=" + s.target.ConnString, "SCRIPTS=" + scripts}
	for _, d := range []*testdb.DB{s.source, s.target} {
		d.Exec(t, "create table m (time timestamptz not null, v int); "+
			"select create_hypertable('m', 'time', chunk_time_interval => interval '1 day')")
	}
	s.source.Exec(t, "insert into m select d + n * interval '1 hour', n "+
		"from generate_series('2024-01-01'::timestamptz, '2024-01-09', '1 day') d, generate_series(1, 20) n")
	s.target.Exec(t, `create function wait() returns trigger language plpgsql as $$ begin perform pg_sleep(0.03);
        return new; end $$;
		create trigger wait before insert on m for each row execute function wait()`)
	s.run("bf-stage --until 2024-02-01")
	return s
}

func (s *slow) run(script string) {
	s.t.Helper()
	r := start(s.t, s.env, script)
	r.wait(s.t, deadline)
	if r.status() != 0 {
		s.t.Fatalf("%s: status %d\n%s", script, r.status(), r.errors())
	}
}

// again makes all tasks pending.
func (s *slow) again() {
	s.target.Exec(s.t, "update __backfill.task set worked = null, failed = null, verified = null; delete from m")
}

// done is the number of tasks that worked. Rows are there for those alone.
func (s *slow) done() (n int) {
	s.t.Helper()
	var rows int
	s.target.Query1(s.t, &n, "select count(*) from __backfill.task where worked is not null")
	s.target.Query1(s.t, &rows, "select count(*) from m")
	if rows < n*slowRows { // more can be: of a commit between the two
		s.t.Errorf("%d rows of %d tasks", rows, n)
	}
	return n
}

// copying is the number of loads in their COPY.
func (s *slow) copying() (n int) {
	s.target.Query1(s.t, &n, "select count(*) from pg_stat_activity where datname = current_database() "+
		"and application_name = 'bf-load' and query ~* '(^|; )copy ' and state = 'active'")
	return n
}

func (s *slow) settle() {
	s.t.Helper()
	within(s.t, 5*time.Second, "nothing is copied any more", func() bool { return s.copying() == 0 })
	var rows int
	done := s.done()
	s.target.Query1(s.t, &rows, "select count(*) from m")
	if rows != done*slowRows {
		s.t.Errorf("%d rows of %d tasks", rows, done)
	}
}

// interruption is how a pipeline is stopped at a terminal, and what has to come of it.
type interruption struct {
	name, command string
	lanes         int
	act           func(tt *terminal) // nil closes the terminal
	finishes      bool               // the chunks in hand
	left          bool               // the prompt may be back before they are
	status        string             // "" for any
}

const (
	oneLane        = "bf-chunks | bf-dump | bf-load"
	underXargs     = `bf-chunks | xargs -r -P2 -d '\n' -n1 sh -c 'bf-dump "$1" | bf-load' _`
	underParallel  = "bf-chunks | parallel --will-cite --pipe -N1 -j2 'bf-dump | bf-load'"
	backfillScript = `"$SCRIPTS/backfill" -p 2 --until 2024-02-01`
)

var interruptions = []interruption{
	{"one ^C, one lane", oneLane, 1, ctrlC, true, false, "130"},
	{"two ^C, one lane", oneLane, 1, ctrlCTwice(200 * time.Millisecond), false, false, "130"},
	{"TERM for bf-load", oneLane, 1, signals("bf-load", syscall.SIGTERM), true, false, "130"},
	{"HUP for bf-load", oneLane, 1, signals("bf-load", syscall.SIGHUP), true, false, "130"},
	{"closed terminal", oneLane, 1, nil, true, true, ""},
	{"^C, xargs -P2", underXargs, 2, ctrlC, true, true, "130"},
	{"TERM for xargs", underXargs, 2, signals("xargs", syscall.SIGTERM), true, true, "143"},
	{"^C, parallel", underParallel, 2, ctrlC, false, true, ""},
	{"^C, scripts/backfill", backfillScript, 2, ctrlC, true, false, "130"},
	{"two ^C, scripts/backfill", backfillScript, 2, ctrlCTwice(300 * time.Millisecond), false, false, "130"},
	{"TERM for scripts/backfill", backfillScript, 2, signalsScript(syscall.SIGTERM, 0), true, false, "130"},
	{"HUP for scripts/backfill", backfillScript, 2, signalsScript(syscall.SIGHUP, 0), true, false, "130"},
	{"HUPs for scripts/backfill", backfillScript, 2, signalsScript(syscall.SIGHUP, 400*time.Millisecond),
		true, false, "130"},
	{"kill -9 scripts/backfill", backfillScript, 2, signalsScript(syscall.SIGKILL, 0), true, true, "137"},
	{"closed terminal, scripts/backfill", backfillScript, 2, nil, true, true, ""},
}

func ctrlC(tt *terminal) { tt.typed("\x03") }

func ctrlCTwice(apart time.Duration) func(*terminal) {
	return func(tt *terminal) {
		ctrlC(tt)
		time.Sleep(apart)
		ctrlC(tt)
	}
}

func signals(name string, sig syscall.Signal) func(*terminal) {
	return func(tt *terminal) { tt.signal(name, sig) }
}

// signalsScript signals for so long, at least once: so often that bash loses signals
// within the trap of one before. On a busy machine the script may end before the last.
func signalsScript(sig syscall.Signal, long time.Duration) func(*terminal) {
	return func(tt *terminal) {
		end := time.Now().Add(long)
		for script := tt.script(); syscall.Kill(script, sig) == nil && time.Now().Before(end); {
		}
	}
}

// TestSignals types at a terminal. One ^C, TERM or HUP finishes the chunks in
// hand; a second one rolls them back.
func TestSignals(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute")
	}
	s := newSlow(t)
	for _, c := range interruptions {
		t.Run(c.name, func(t *testing.T) {
			if _, err := exec.LookPath("parallel"); err != nil && c.command == underParallel {
				t.Skip("needs GNU parallel")
			}
			s.t = t
			s.interrupt(t, c)
		})
	}
	s.t = t
	t.Run("head", func(t *testing.T) {
		tt := openTerminal(t, s.env)
		if got := tt.run("bf-chunks --all | head -n 1 | cut -c 1-5"); got != `{"v":` {
			t.Errorf("screen %q", got)
		}
	})
	// What was stopped goes on where it was.
	s.target.Exec(t, "drop trigger wait on m")
	s.run("bf-chunks | bf-dump | bf-load")
	s.settle()
	if done := s.done(); done != 9 {
		t.Errorf("%d tasks are done in the end", done)
	}
}

// interrupt stops the pipeline while a chunk is copied. It checks which tasks are done
// afterwards, that no process goes on, and the exit status.
func (s *slow) interrupt(t *testing.T, c interruption) {
	s.again()
	tt := openTerminal(t, s.env)
	tt.typed(c.command + "\n")
	// Into a chunk: not just before its end, with the next tools not yet able
	// to hear a signal.
	within(t, 20*time.Second, "the first chunk is done and the next in hand", func() bool {
		done := s.done()
		if done == 0 || s.copying() == 0 {
			return false
		}
		time.Sleep(100 * time.Millisecond)
		return s.done() == done && s.copying() > 0
	})
	before, began := s.done(), time.Now()
	if c.act == nil {
		tt.master.Close()
	} else {
		c.act(tt)
		tt.prompts(2)
		if ps := tt.tools(); !c.left && len(ps) > 0 {
			t.Errorf("the prompt is back, but %v go on", ps)
		}
	}
	within(t, 5*time.Second, "all processes have ended", func() bool { return len(tt.tools()) == 0 })
	took := time.Since(began)
	s.settle()
	switch done := s.done(); {
	// A chunk may end, and another begin, just before the signal.
	case c.finishes && (done < before+1 || done > before+2*c.lanes):
		t.Errorf("%d tasks were done and %d in hand, now %d are done", before, c.lanes, done)
	case !c.finishes && done > before+c.lanes/2:
		t.Errorf("%d tasks were done, now %d", before, done)
	case !c.finishes && took > 3*time.Second:
		t.Errorf("rolling back took %v", took)
	}
	if c.act != nil && c.status != "" {
		if got := tt.run(`echo "$?"`); got != c.status {
			t.Errorf("exit status %s, want %s", got, c.status)
		}
	}
	if t.Failed() {
		t.Logf("screen:\n%s", tt.screen())
	}
}

// signal signals the tools of that name.
func (tt *terminal) signal(name string, sig os.Signal) {
	tt.t.Helper()
	n := 0
	for _, p := range tt.processes() {
		if p.name == name {
			syscall.Kill(p.pid, sig.(syscall.Signal))
			n++
		}
	}
	if n == 0 {
		tt.t.Errorf("no %s to signal", name)
	}
}

// script is the process of the script that the shell runs, not of its helpers.
func (tt *terminal) script() (pid int) {
	tt.t.Helper()
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(tt.shell.Process.Pid), "task",
		strconv.Itoa(tt.shell.Process.Pid), "children"))
	if err != nil || len(strings.Fields(string(b))) != 1 {
		tt.t.Fatalf("children of the shell: %q, %v", b, err)
	}
	pid, _ = strconv.Atoi(strings.Fields(string(b))[0])
	return pid
}
