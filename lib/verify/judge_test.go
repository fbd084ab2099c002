package verify

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"bf/lib/pg"
	"bf/lib/task"
)

const aTask = `{"v":1,"task":7,"chunk":{"schema":"s","name":"c"},"hypertable":{"schema":"public","name":"m"},` +
	`"slices":[{"column":"time","from":"0","until":"10"}],"range":{"column":"time","from":"0","until":"10"}}`

func summaryLine(method, hash, state string) string {
	return fmt.Sprintf(`{"v":1,"kind":"summary","task":%s,"method":%q,"hash_name":%q,"state":%q}`+"\n",
		aTask, method, hash, state)
}

func endLine(summaries, failed int, stopped bool) string {
	return fmt.Sprintf(`{"v":1,"kind":"end","summaries":%d,"failed":%d,"stopped":%t}`+"\n", summaries, failed, stopped)
}

// TestSummaries: what comes through a pipe is believed only if it is whole, made
// with the same hash, and understood.
func TestSummaries(t *testing.T) {
	good := summaryLine("rows", HashName, "chunk")
	for _, c := range []struct {
		what, in string
		read     int
		want     string // of the error that ends it; "" for a proper end
	}{
		{"whole", good + good + endLine(2, 0, false), 2, ""},
		{"none", endLine(0, 0, false), 0, ""},
		{"two halves in any order", endLine(1, 0, false) + good + good + endLine(1, 0, false), 2, ""},
		{"gone", summaryLine("values", HashName, "gone") + endLine(1, 0, false), 1, ""},
		{"empty", "", 0, "no summaries on stdin"},
		{"cut off", good, 1, "not whole: 1 came, and bf-verify --source vouches for 0"},
		{"one lost", good + endLine(2, 0, false), 1, "vouches for 2"},
		{"one failed", good + endLine(1, 1, false), 1, "could not summarize 1 tasks"},
		{"stopped", endLine(0, 0, true), 0, "was stopped"},
		{"no hash", summaryLine("rows", "", "chunk") + endLine(1, 0, false), 0, "did not name its hash"},
		{"another hash", good + summaryLine("summary", "rows-9", "gone") + endLine(2, 0, false), 1, `hash "rows-9"`},
	} {
		s := &summaries{Reader: task.NewReader(strings.NewReader(c.in)), piped: true}
		read := 0
		var err error
		for ; err == nil; read++ {
			_, err = s.next()
		}
		read--
		if read != c.read || (err == io.EOF) != (c.want == "") || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %d read, %v", c.what, read, err)
		}
		var other *HashError
		if errors.As(err, &other) != strings.Contains(c.what, "hash") || errors.As(err, &other) &&
			other.Suggest() == "" {
			t.Errorf("%s: %v", c.what, err)
		}
	}
	for _, bad := range []string{"{", `"x"`, aTask, `{"v":2,"kind":"summary"}`,
		summaryLine("guess", HashName, "chunk"), summaryLine("rows", HashName, "?")} {
		s := &summaries{Reader: task.NewReader(strings.NewReader(bad + "\n" + good))}
		var rec *task.BadRecord
		if _, err := s.next(); !errors.As(err, &rec) || rec.Line != 1 {
			t.Errorf("%s: %v", bad, err)
		}
		if j, err := s.next(); err != nil || j.task.Task != 7 || j.summary == nil {
			t.Errorf("after %s: %v", bad, err)
		}
	}
}

func TestCheckColumns(t *testing.T) {
	for _, c := range []struct {
		column Column
		good   bool
	}{
		{Column{Name: "a", How: pg.HashValue}, true},
		{Column{Name: "a", How: "timestamptz_send"}, true},
		{Column{Name: "a", How: hashNumbers}, true},
		{Column{Name: "a", How: "pg_sleep"}, false},
		{Column{Name: "", How: pg.HashValue}, false},
		{Column{Name: "a\x00", How: pg.HashText}, false},
	} {
		if c.column.valid() != c.good {
			t.Errorf("%+v: %t", c.column, !c.good)
		}
	}
}

func TestJudge(t *testing.T) {
	column := func(hash, sum string) []Column {
		return []Column{{Name: "a", Type: "integer", Values: &Values{Count: "2", Sum: &sum, Hash: &hash}}}
	}
	of := func(rows int64, hash string, cols []Column) *Summary {
		return &Summary{Rows: rows, Hash: hash, Columns: cols}
	}
	two := of(2, "1", nil)
	gone := &side{gone: true}
	for _, c := range []struct {
		comparison
		status  task.Status
		message string
		differ  int
	}{
		{comparison{method: ByRows, source: two, target: two}, task.Verified, "equal: 2 rows", 0},
		{comparison{method: ByValue, source: two, target: two}, task.Verified, "equal by value: 2 rows", 0},
		{comparison{method: BySummary, source: of(2, "", column("1", "3")), target: of(2, "", column("2", "3"))},
			task.Differs, `differs: column "a", hash: 1 on the source, 2 on the target`, 1},
		{comparison{method: BySummary, source: of(2, "", column("1", "3")), target: of(2, "", column("1", "3"))},
			task.Verified, "equal: 2 rows; count, min, max and sum of 1 columns", 0},
		{comparison{method: ByRows, source: of(2, "1", column("1", "3")), target: of(2, "2", column("1", "3"))},
			task.Differs, "differs: hash: 1 on the source, 2 on the target; " +
				"each column has the same values on both sides, but in other rows", 1},
		{comparison{method: ByRows, source: two, target: of(3, "2", nil)},
			task.Differs, "differs: rows: 2 on the source, 3 on the target", 1},
		// The texts of values that are equal do not count.
		{comparison{method: ByValue, source: of(2, "1", column("1", "3")), target: of(2, "1", column("1", "3.0"))},
			task.Verified, "equal by value: 2 rows", 0},
		{comparison{method: ByRows, source: two, target: of(0, "0", nil), to: gone},
			task.Gone, "gone on the target: the chunk was dropped there", 1},
		{comparison{method: ByRows, source: of(0, "0", nil), target: of(0, "0", nil), to: gone},
			task.Verified, "equal: 0 rows", 0},
	} {
		if c.to == nil {
			c.to = &side{}
		}
		var res task.Result
		c.judge(&res)
		hashed := res.Status == task.Verified && c.method != BySummary
		if res.Status != c.status || res.Message != c.message || len(res.Differences) != c.differ ||
			(res.Hash != "") != hashed {
			t.Errorf("%+v\nwant %s: %s", res, c.status, c.message)
		}
	}
}
