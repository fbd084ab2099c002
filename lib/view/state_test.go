package view

import (
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

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
			Workers: []*queue.Worker{loads("metrics", 1, 5_000_000)}}, 40, 24, `
copy  [##############.]  93%  2s left
   publ…metrics  7/8 chunks  1 failed …
 > public…r_1_1_chunk  50% of 10 MB  1s`},
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

// TestBlockMany: of 200 hypertables those are shown that are in hand or have failed,
// and the block always fits.
func TestBlockMany(t *testing.T) {
	s := State{Phase: Copy, Recent: 1e6, Whole: 1e6}
	for i := range int64(200) {
		s.Each = append(s.Each, counts(fmt.Sprintf("häuser_%03d", i), 10, i%11, 0, 0))
	}
	s.Each[150].Failed, s.Each[150].Done = 1, 5
	for i := range int64(20) {
		s.Workers = append(s.Workers, loads("häuser_117", i+1, i*500_000))
	}
	all := strings.Join(s.Block(100, 40), "\n")
	for _, want := range []string{"public.häuser_117 ", "public.häuser_150 ", "1 failed", "… 189 more ",
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
				if n := utf8.RuneCountInString(l); n >= columns && columns > 20 {
					t.Errorf("%d characters on a terminal of %d: %q", n, columns, l)
				}
			}
		}
	}
}
