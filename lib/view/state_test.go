package view

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"bf/lib/cli"
	"bf/lib/queue"
	"bf/lib/task"
)

// counts is a hypertable of which some chunks of 10 MB are done, or have failed, or
// are verified.
func counts(name string, total, done, failed, verified int64) *queue.Counts {
	const size = 10_000_000
	return &queue.Counts{Hypertable: task.Name{Schema: "public", Name: name}, Total: total, Done: done, Failed: failed,
		Verified: verified, Bytes: total * size, BytesDone: done * size, BytesVerified: verified * size}
}

func loads(name string, number int64, copied int64) *queue.Worker {
	return &queue.Worker{Tool: "bf-load", Task: number, Hypertable: task.Name{Schema: "public", Name: name},
		Chunk: fmt.Sprintf("_hyper_1_%d_chunk", number), Bytes: 10_000_000, Copied: copied, Seconds: float64(number)}
}

func from(host string, w *queue.Worker) *queue.Worker {
	w.Host = host
	return w
}

// of makes it a slice of a plain table.
func of(from, until string, w *queue.Worker) *queue.Worker {
	w.Chunk, w.Range = w.Hypertable.Name, &task.Range{Column: "time", FromText: from, UntilText: until}
	return w
}

// TestBlock: the screens of a backfill, as people see them.
func TestBlock(t *testing.T) {
	for _, c := range []struct {
		name          string
		state         State
		columns, rows int
		want          string
	}{
		{"stage", State{Phase: Stage}, 80, 24, `
stage`},
		{"one hypertable, at the start", State{Phase: Copy, Each: []*queue.Counts{counts("metrics", 8, 0, 0, 0)},
			Workers: []*queue.Worker{{Tool: "bf-load"}, {Tool: "bf-chunks"}}}, 80, 24, `
copy  [........................................]   0%  0 B/80 MB
   public.metrics  0/8 chunks  0 B/80 MB
 > waiting for a chunk`},
		{"three, in the middle", State{Phase: Copy, Recent: 3e6, Whole: 2e6, Each: []*queue.Counts{
			counts("a", 3, 3, 0, 0), counts("metrics", 8, 3, 0, 0), counts("weather", 120, 0, 0, 0)},
			Workers: []*queue.Worker{loads("metrics", 7, 5_000_000), loads("weather", 12, 20_000_000),
				loads("metrics", 6, 0)}}, 80, 24, `
copy  [..........]   5%  75 MB/1.3 GB  3.0 MB/s  (whole 2.0 MB/s)  6m52s left
   public.a          3/3 chunks    30/30 MB
   public.metrics    3/8 chunks    30/80 MB
   public.weather  0/120 chunks  0 B/1.2 GB
 > public.metrics _hyper_1_7_chunk   50% of 10 MB   7s
 > public.weather _hyper_1_12_chunk  99% of 10 MB  12s
 > public.metrics _hyper_1_6_chunk          10 MB   6s`},
		{"a failure, on a narrow terminal", State{Phase: Copy, Recent: 3e6,
			Each:    []*queue.Counts{counts("metrics", 8, 7, 1, 0)},
			Workers: []*queue.Worker{loads("metrics", 1, 5_000_000), {Tool: "bf-load"}}}, 40, 24, `
copy  [##############.]  93%  2s left
   public.metrics  7/8  1 failed
 > public…r_1_1_chunk  50% of 10 MB  1s
 > waiting`},
		{"and on a narrower one", State{Phase: Copy, Recent: 3e6,
			Each:    []*queue.Counts{counts("metrics", 8, 7, 1, 0), counts("w", 1200, 120, 0, 0)},
			Workers: []*queue.Worker{loads("metrics", 17, 5_000_000)}}, 30, 24, `
copy  10%  1h00m left
   pu…ics       7/8  1 failed
   pu…c.w  120/1200
 > publ…7_chunk  50% of 10 MB`},
		{"lanes on two hosts", State{Phase: Copy, Each: []*queue.Counts{counts("metrics", 8, 3, 0, 0)},
			Workers: []*queue.Worker{from("10.1.2.3", loads("metrics", 1, 5_000_000)), from("", loads("metrics", 2, 0)),
				from("10.1.2.3", &queue.Worker{Tool: "bf-load"})}}, 80, 24, `
copy  [#################.......................]  43%  35/80 MB
   public.metrics  3/8 chunks  30/80 MB
 > public.metrics _hyper_1_1_chunk  50% of 10 MB  1s    from 10.1.2.3
 > public.metrics _hyper_1_2_chunk         10 MB  2s  from the target
 > waiting for a chunk                                  from 10.1.2.3`},
		{"slices of a plain table", State{Phase: Copy, Each: []*queue.Counts{counts("logs", 8, 3, 0, 0)},
			Workers: []*queue.Worker{
				of("2024-01-01 00:00:00+00", "2024-01-02 00:00:00+00", loads("logs", 1, 5_000_000)),
				of("2024-01-02 00:00:00+00", "2024-01-02 18:30:00+00", loads("logs", 2, 0)),
				of("-100", "100", loads("logs", 3, 0))}}, 80, 24, `
copy  [#################.......................]  43%  35/80 MB
   public.logs  3/8 chunks  30/80 MB
 > public.logs [2024-01-01, 2024-01-02)              50% of 10 MB  1s
 > public.logs [2024-01-02 00:00, 2024-01-02 18:30)         10 MB  2s
 > public.logs [-100, 100)                                  10 MB  3s`},
		{"verify", State{Phase: Verify, Recent: 3e6, Each: []*queue.Counts{counts("metrics", 8, 8, 0, 4)},
			Workers: []*queue.Worker{{Tool: "bf-verify"}, {Tool: "bf-verify worker", Task: 7, Chunk: "_hyper_1_7_chunk",
				Hypertable: task.Name{Schema: "public", Name: "metrics"}, Bytes: 10_000_000}}}, 80, 24, `
verify  [################................]  50%  40/80 MB  3.0 MB/s  13s left
   public.metrics  4/8 verified  40/80 MB
 > waiting for a chunk
 > public.metrics _hyper_1_7_chunk  10 MB`},
		{"the end", State{Phase: Verify, Each: []*queue.Counts{counts("metrics", 8, 8, 0, 8)}}, 80, 24, `
verify  [########################################] 100%  80/80 MB
   public.metrics  8/8 verified  80/80 MB`},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := "\n" + strings.Join(c.state.Block(c.columns, c.rows), "\n"); got != c.want {
				t.Errorf("%s\nwant%s", got, c.want)
			}
		})
	}
}

// TestPictures: the manual shows what is shown.
func TestPictures(t *testing.T) {
	each := func(done, failed int64) []*queue.Counts {
		return []*queue.Counts{counts("metrics", 8, 3, 0, 0), counts("other", 8, done, failed, 0)}
	}
	in := func(name string, number, chunk, copied int64, seconds float64) *queue.Worker {
		w := loads(name, chunk, copied)
		w.Chunk, w.Seconds = fmt.Sprintf("_hyper_%d_%d_chunk", number, chunk), seconds
		return w
	}
	for page, s := range map[string]State{
		"../../cmd/bf-chunks/bf-chunks.1": {Phase: Copy, Recent: 2.6e6, Whole: 3.1e6, Each: each(3, 1),
			Workers: []*queue.Worker{in("metrics", 1, 7, 3_300_000, 2), in("other", 2, 15, 700_000, 1),
				in("metrics", 1, 2, 0, 0.3)}},
		"../../scripts/bf-backfill.1": {Phase: Copy, Recent: 2.6e6, Whole: 3.1e6, Each: each(8, 0),
			Workers: []*queue.Worker{in("metrics", 1, 7, 3_300_000, 2), in("metrics", 1, 5, 1_200_000, 1),
				in("metrics", 1, 2, 0, 0.3)}},
	} {
		text, err := os.ReadFile(page)
		if want := strings.Join(s.Block(80, 24), "\n"); err != nil || !strings.Contains(string(text), "\n"+want+"\n") {
			t.Errorf("%s does not show (%v)\n%s", page, err, want)
		}
	}
}

// TestBlockMany: of 200 hypertables those are shown that are in hand or have failed,
// and the block always fits.
func TestBlockMany(t *testing.T) {
	s := State{Phase: Copy, Recent: 1e6, Whole: 1e6}
	for i := range int64(200) {
		s.Each = append(s.Each, counts(fmt.Sprintf("häuser_%03d", i), 10, i%11, 0, 0))
	}
	s.Each[140] = counts("温度センサーの記録の温度センサーの記録", 10, 5, 1, 0) // letters that take two columns
	s.Each[150].Failed, s.Each[150].Done = 1, 5
	for i := range int64(20) {
		s.Workers = append(s.Workers, loads("häuser_117", i+1, i*500_000))
	}
	all := strings.Join(s.Block(100, 40), "\n")
	for _, want := range []string{"public.häuser_117 ", "public.häuser_150 ", "1 failed", "… 189 more ",
		"public.温度センサーの記録の温度センサーの記録 ",
		"… 9 more lanes"} {
		if !strings.Contains(all, want) {
			t.Errorf("no %q in\n%s", want, all)
		}
	}
	for columns := 1; columns < 200; columns += 7 {
		for rows := 3; rows < 60; rows += 5 {
			block := s.Block(columns, rows)
			if len(block) >= rows {
				t.Errorf("%d lines on a terminal of %d", len(block), rows)
			}
			for _, l := range block {
				if n := cli.Width(l); n >= columns && columns > 20 {
					t.Errorf("%d characters on a terminal of %d: %q", n, columns, l)
				}
			}
		}
	}
}

// TestRates: the rate of the whole counts all the time in which something was copied,
// and no other.
func TestRates(t *testing.T) {
	state := func(done int64, workers ...*queue.Worker) *State {
		return &State{Phase: Copy, Each: []*queue.Counts{counts("metrics", 8, done, 0, 0)}, Workers: workers}
	}
	for _, c := range []struct {
		name          string
		before, state *State
		ago           time.Duration // the last look
		busy          float64
	}{
		{"nobody is there", state(0), state(0), 2 * time.Second, 0},
		{"a lane is there", state(0), state(0, loads("metrics", 1, 5)), 2 * time.Second, 2},
		{"a lane was there in between", state(0), state(1), 2 * time.Second, 2},
		{"a lane that has not copied yet", state(0), state(0, loads("metrics", 1, 0)), 2 * time.Second, 2},
		{"suspended in between", state(0), state(1, loads("metrics", 1, 5)), time.Hour, (time.Second + late).Seconds()},
	} {
		l := &looker{state: *c.before, last: time.Now().Add(-c.ago), waits: time.Second}
		l.rates(c.state)
		if l.busy < c.busy || l.busy > c.busy+1 {
			t.Errorf("%s: busy for %v, want %v", c.name, l.busy, c.busy)
		}
	}
}

// TestLine: where nothing is redrawn there is a line per minute or per per cent,
// whichever is rarer.
func TestLine(t *testing.T) {
	var out strings.Builder
	w := &watcher{log: cli.NewLog("bf-backfill", &out, cli.Common{})}
	for _, c := range []struct {
		done int64 // of 200 chunks
		ago  time.Duration
		want string
	}{
		{4, time.Second, ""}, // too soon
		{4, 2 * time.Minute, "2%, 4/200 chunks, 40 MB/2.0 GB, 1.0 MB/s, 32m40s left"}, // both
		{5, 2 * time.Minute, ""},  // not a per cent more
		{6, 10 * time.Second, ""}, // too soon
		{20, time.Hour, "10%, 20/200 chunks, 200 MB/2.0 GB, 1.0 MB/s, 30m00s left; 1 failed"},
	} {
		out.Reset()
		w.printed = time.Now().Add(-c.ago)
		w.state = State{Phase: Copy, Recent: 1e6, Each: []*queue.Counts{counts("metrics", 200, c.done, c.done/20, 0)}}
		w.line()
		if c.want != "" {
			c.want = "bf-backfill: copy " + c.want + "\n"
		}
		if out.String() != c.want {
			t.Errorf("%d done, after %s: %q, want %q", c.done, c.ago, out.String(), c.want)
		}
	}
}
