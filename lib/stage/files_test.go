package stage

import (
	"testing"

	"bf/lib/csv"
	"bf/lib/task"
)

// TestSkipped: more compressed files than stay open are read from the beginning by each task.
func TestSkipped(t *testing.T) {
	blocks := []task.FileBlock{{Offset: 100, Length: 10}, {Offset: 120, Length: 10}}
	for _, c := range []struct {
		codec csv.Codec
		files int
		want  int64
	}{{csv.Gzip, csv.MostOpen, 0}, {csv.Gzip, csv.MostOpen + 1, (csv.MostOpen + 1) * 110}, {csv.Plain, 100, 0}} {
		var files []task.File
		for range c.files {
			files = append(files, task.File{Codec: string(c.codec), Blocks: blocks})
		}
		if got := skipped(files); got != c.want {
			t.Errorf("%d files (%s): %d bytes are read for nothing, want %d", c.files, c.codec, got, c.want)
		}
	}
}
