package view

import (
	"testing"

	"bf/lib/queue"
	"bf/lib/task"
)

// TestTable: the summary on terminals of several widths. What does not fit is left out,
// so that the names and what failed are still to be read.
func TestTable(t *testing.T) {
	progress := func(name string, done, failed int64) *queue.Progress {
		return &queue.Progress{Hypertable: task.Name{Schema: "public", Name: name}, Total: 30, Done: done,
			Pending: 30 - done, Failed: failed, Bytes: 3e9, BytesDone: done * 1e8, Rate: 5e6, Left: 100}
	}
	all := progress("", 42, 2)
	all.Total, all.Pending, all.Bytes = 60, 18, 6e9
	s := summary{each: []*queue.Progress{progress("readings", 12, 2), progress("hourly", 30, 0)},
		all: all, busy: 3}
	for columns, want := range map[int]string{
		80: `
hypertable      chunks pending failed verified unequal      bytes     rate  left
public.readings  12/30      18      2        0       0 1.2/3.0 GB 5.0 MB/s 1m40s
public.hourly    30/30       0      0        0       0 3.0/3.0 GB 5.0 MB/s 1m40s
total            42/60      18      2        0       0 4.2/6.0 GB 5.0 MB/s 1m40s
3 at work
`,
		50: `
hypertable      chunks pending failed unequal
public.readings  12/30      18      2       0
public.hourly    30/30       0      0       0
total            42/60      18      2       0
3 at work
`,
		40: `
hypertable      chunks failed unequal
public.readings  12/30      2       0
public.hourly    30/30      0       0
total            42/60      2       0
3 at work
`,
		20: `
hypertable    chunks
publ…readings  12/30
public.hourly  30/30
total          42/60
3 at work
`} {
		if got := "\n" + s.table(columns); got != want {
			t.Errorf("%d columns:%s\nwant%s", columns, got, want)
		}
	}
}
