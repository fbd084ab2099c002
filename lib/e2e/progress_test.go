package e2e

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestDoneOfAll: the lines of bf-load say how many chunks are done of how many,
// by whatever process, and not what number the task has.
func TestDoneOfAll(t *testing.T) {
	p := newPair(t, newest(t))
	simple(t, p, "h")
	p.stage(t, "--until", "2025-01-01")
	p.dst.Exec(t, "delete from __backfill.task where priority <= 4") // as tasks that are retired
	recs := lines(p.chunks(t))
	said := func(want int, recs []string, args ...string) {
		t.Helper()
		r := p.run(t, p.dump(t, strings.Join(recs, "\n")), "bf-load",
			append([]string{"--target", p.target}, args...)...)
		if r.status != 0 {
			t.Fatal(r.stderr)
		}
		for _, l := range lines(r.stderr) {
			if !regexp.MustCompile(fmt.Sprintf(`^bf-load: %d/6 public\.h _hyper_`, want)).MatchString(l) {
				t.Errorf("%q, want %d/6", l, want)
			}
			want = min(want+1, 6)
		}
	}
	said(1, recs[:2])
	said(2, recs[1:2], "--force")
	said(3, recs[2:])
	said(6, recs[5:])
}

// TestWaitingFor stops bf-load in the middle of a chunk: at the first ^C it says
// what it waits for, on a terminal again and again with what is left of it; a
// TERM, which bf-backfill sends, and a ^C between two chunks need no words.
func TestWaitingFor(t *testing.T) {
	p := newPair(t, newest(t))
	simple(t, p, "h")
	p.both(t, "alter table h add filler text")
	// more than a frame per chunk
	p.src.Exec(t, "insert into h select ts, v, repeat('x', 3000) from h, generate_series(1, 25)")
	p.stage(t, "--until", "2025-01-01")
	waiting := regexp.MustCompile(`bf-load: waiting for public\.h (_hyper_1_\d+_chunk): \d+%, about \d+s left; ` +
		`once more rolls it back\r?\n`)
	for _, c := range []struct {
		name             string
		signal           os.Signal
		inHand, terminal bool
		said             int
	}{
		{"a chunk in hand", os.Interrupt, true, false, 1},
		{"on a terminal", os.Interrupt, true, true, 1},
		{"between two chunks", os.Interrupt, false, false, 0},
		{"TERM", syscall.SIGTERM, true, false, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			recs := lines(p.chunks(t))
			first, second := p.dump(t, recs[0]), p.dump(t, recs[1])
			cmd := p.command(t, "bf-load", "--target", p.target)
			var errs syncBuffer
			cmd.Stderr = &errs
			var term *terminal
			if c.terminal {
				term = newTerminal(t, 100, 10)
				cmd.Stderr = term.tty
				cmd.Env = append(cmd.Env, "TERM=xterm")
			}
			in, err := cmd.StdinPipe()
			if err == nil {
				err = cmd.Start()
			}
			if err != nil {
				t.Fatal(err)
			}
			io.WriteString(in, first)
			rest := ""
			if c.inHand {
				half := len(second) / 2
				rest = second[half:]
				io.WriteString(in, second[:half])
			}
			if c.terminal {
				term.until(t, "%") // the live line of a chunk in hand
			} else {
				errs.until(t, "rows")
			}
			if c.inHand {
				eventually(t, p.dst, "select count(*) from pg_stat_progress_copy where datname = current_database()", 1)
			}
			cmd.Process.Signal(c.signal)
			switch {
			case c.terminal:
				term.until(t, erase+"bf-load: waiting for public.h _hyper_")
			case c.said > 0:
				errs.until(t, "bf-load: waiting for public.h _hyper_")
			default:
				time.Sleep(300 * time.Millisecond)
			}
			io.WriteString(in, rest)
			in.Close()
			cmd.Wait()
			if got := cmd.ProcessState.ExitCode(); got != 130 {
				t.Errorf("exit status %d", got)
			}
			text := errs.String()
			if c.terminal {
				text = term.text(t)
			}
			if n := len(waiting.FindAllString(text, -1)); n != c.said {
				t.Errorf("it is said %d times, want %d: %q", n, c.said, text)
			}
			want := 1
			if c.inHand {
				want = 2
			}
			if n := len(recs) - len(lines(p.chunks(t))); n != want {
				t.Errorf("%d chunks were loaded, want %d", n, want)
			}
		})
	}
}

// syncBuffer collects what a command writes, while it runs.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// until waits for a text.
func (s *syncBuffer) until(t *testing.T, want string) {
	t.Helper()
	for deadline := time.Now().Add(patience); !strings.Contains(s.String(), want); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%q does not appear in %q", want, s.String())
		}
	}
}
