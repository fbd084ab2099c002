package view

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"bf/lib/cli"
	"bf/lib/pg"
	"bf/lib/queue"
	"bf/lib/task"
)

// rateParts is how many lines show how the rate was over time.
const rateParts = 12

// Report prints what became of a backfill, as text or as a record.
func Report(e *cli.Env, c *pg.Conn, asRecord bool) error {
	r, err := queue.NewReport(e.Stop.Context, c, rateParts)
	if err != nil {
		return err
	}
	if asRecord {
		return task.Write(e.Stdout, r)
	}
	var b strings.Builder
	for _, h := range r.Each {
		reportHypertable(&b, h)
	}
	reportRates(&b, r)
	reportFailures(&b, r)
	reportLeft(&b, r)
	_, err = io.WriteString(e.Stdout, b.String())
	return err
}

// reportHypertable says what became of one hypertable.
func reportHypertable(b *strings.Builder, h *queue.Reported) {
	say := func(format string, args ...any) { fmt.Fprintf(b, "  "+format+"\n", args...) }
	fmt.Fprintf(b, "%s\n", cli.Clean(h.Hypertable.String()))
	if h.Began == nil {
		say("none of %d chunks is copied", h.Total)
	} else {
		say("copied: %d of %d chunks, %d rows, %s", h.Done, h.Total, h.Rows, cli.Bytes(h.Bytes))
		say("when: %s to %s, at work for %s, %s", h.Began.Format(time.DateTime), h.Ended.Format(time.DateTime),
			cli.Duration(h.Seconds), cli.Bytes(int64(float64(h.Bytes)/max(h.Seconds, 0.001)))+"/s")
		say("how: %s", listed(h.Ways, func(w string) string { return w }))
		verified := listed(h.Methods, func(m string) string { return "equal by --method " + m })
		if n := h.Done - h.Verified - h.Unequal; n > 0 {
			verified = strings.TrimPrefix(verified+fmt.Sprintf(", %d not compared", n), ", ")
		}
		if h.Unequal > 0 {
			verified = strings.TrimPrefix(verified+fmt.Sprintf(", %d not equal", h.Unequal), ", ")
		}
		say("compared: %s", verified)
	}
	if len(h.Loose) > 0 {
		say("left uncompressed: %s", listed(h.Loose, func(l task.Loose) string { return l.Says() }))
	}
	if h.Attempts > 0 {
		say("failed attempts: %d; of %d chunks the last one failed", h.Attempts, h.Failed)
	}
}

// listed is a count of each, the most frequent first.
func listed[K ~string](counts map[K]int64, says func(K) string) string {
	keys := slices.SortedFunc(maps.Keys(counts), func(a, b K) int {
		if n := counts[b] - counts[a]; n != 0 {
			return int(n)
		}
		return strings.Compare(string(a), string(b))
	})
	var parts []string
	for _, k := range keys {
		parts = append(parts, fmt.Sprintf("%d %s", counts[k], says(k)))
	}
	return strings.Join(parts, ", ")
}

// reportRates is a picture of the rate over time.
func reportRates(b *strings.Builder, r *queue.Report) {
	var most float64
	for _, p := range r.Rates {
		most = max(most, p.Bytes)
	}
	if most == 0 {
		return
	}
	fmt.Fprintln(b, "rate over time")
	for _, p := range r.Rates {
		bar := strings.Repeat("#", int(p.Bytes/most*40+0.5))
		fmt.Fprintf(b, "  %s  %-40s  %s/s\n", p.At.Format(time.DateTime), bar, cli.Bytes(int64(p.Bytes)))
	}
}

// reportFailures lists what failed last, some of it.
func reportFailures(b *strings.Builder, r *queue.Report) {
	const some = 20
	if len(r.Failures) == 0 {
		return
	}
	fmt.Fprintln(b, "failed")
	for _, f := range r.Failures[max(len(r.Failures)-some, 0):] {
		fmt.Fprintf(b, "  task %d, %s: %s, attempt %d: %s\n", f.Task, cli.Clean(f.Hypertable.String()+" "+f.Place()),
			f.At.Format(time.DateTime), f.Attempts, cli.Clean(f.Message))
	}
}

// are is a number of chunks as the subject of a sentence.
func are(n int64) string {
	if n == 1 {
		return chunks(n) + " is"
	}
	return chunks(n) + " are"
}

// reportLeft says what is left to do before the application is switched.
func reportLeft(b *strings.Builder, r *queue.Report) {
	var pending, uncompared, unequal int64
	const chunk = "chunk" // what __backfill has for task.KindChunk
	kinds := map[string]int64{}
	for _, h := range r.Each {
		for kind, n := range h.Kinds {
			kinds[kind] += n
		}
		pending, uncompared, unequal = pending+h.Total-h.Done, uncompared+h.Done-h.Verified-h.Unequal, unequal+h.Unequal
	}
	fmt.Fprintln(b, "left to do before the switch")
	for _, left := range []struct {
		is   bool
		what string
	}{
		{pending > 0, are(pending) + " to be copied: bf-backfill"},
		{unequal > 0, chunks(unequal) + " compared and not found equal: bf-chunks --done, bf-load --force"},
		{uncompared > 0, are(uncompared) + " to be compared: bf-verify"},
		{len(r.Interrupted) > 0, "bf-caggs was interrupted, run it again: " +
			cli.Clean(strings.Join(r.Interrupted, ", "))},
		{r.Jobs > 0, fmt.Sprintf("%d jobs of the target are paused: bf-clean --jobs", r.Jobs)},
		{kinds[chunk] > 0, "compare what was written since, and the schemas: bf-verify --from, then --schema"},
		{kinds[chunk] == 0 && kinds[task.KindSlice] > 0, "compare the schemas: bf-verify --schema"},
		{kinds[task.KindSlice] > 0, "set the sequences that bf-stage has named, by its select setval(...)"},
		{true, "schedule the jobs that bf-clone-schema has paused; keep this report; bf-clean"},
	} {
		if left.is {
			fmt.Fprintf(b, "  %s\n", left.what)
		}
	}
}
