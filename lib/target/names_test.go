package target_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"bf/lib/pg"
	"bf/lib/queue"
	"bf/lib/stage"
	"bf/lib/task"
	"bf/lib/testdb"
	"bf/lib/tsdb"
	"bf/lib/verify"
)

// columnName makes up a name of up to 63 bytes in UTF-8, of letters of one to four
// bytes, or of those that LATIN1 has.
func columnName(latin bool) string {
	alphabets := []string{"abcxyz_", "aB\"'\\ %$.", "Ñéüßÿ", "Температура_воздуха_у_реки", "温度在河边的空气_", "a温Т😀", "😀🌊"}
	if latin {
		alphabets = alphabets[:3]
	}
	letters := []rune(alphabets[rand.N(len(alphabets))])
	var name string
	for n := 1 + rand.N(63); ; {
		next := name + string(letters[rand.N(len(letters))])
		if len(next) > n && name != "" || len(next) > 63 {
			return name
		}
		name = next
	}
}

// TestColumnNames copies compressed chunks whose columns have any names. The
// server cuts those of metadata after some bytes, within a character if it must,
// and takes such a name from no client: then rows travel, and are compressed.
func TestColumnNames(t *testing.T) {
	testdb.EachFull(t, func(t *testing.T, p testdb.Pair) {
		n := 4
		if newest(t, p) {
			n = 8
		}
		for i := range n {
			encoding := []string{"UTF8", "UTF8", "SQL_ASCII", "LATIN1"}[i%4]
			t.Run(fmt.Sprint(encoding, i), func(t *testing.T) { copyNames(t, p, encoding) })
		}
	})
}

func copyNames(t *testing.T, p testdb.Pair, encoding string) {
	taken := map[string]bool{"tableoid": true}
	var names []string
	for len(names) < 5 {
		name := columnName(encoding == "LATIN1")
		if encoding == "UTF8" && len(names) == 3 && rand.N(2) == 0 {
			name = "Температура_воздуха_у_реки" // of the report
		}
		if !taken[name] {
			taken[name] = true
			names = append(names, name)
		}
	}
	q := func(i int) string { return pg.Ident(names[i]) }
	make := func(in testdb.Install, side string) *testdb.DB {
		if encoding == "UTF8" {
			return testdb.New(t, in, side)
		}
		return testdb.NewSorted(t, in, side, "encoding '"+encoding+"' locale 'C'")
	}
	s := &sides{src: make(p.Source, "source"), dst: make(p.Target, "target")}
	client := "UTF8"
	if encoding == "SQL_ASCII" {
		client = encoding
	}
	s.exec(t, "do $$ begin execute 'alter database '||current_database()||' set client_encoding = "+
		[]string{"LATIN1", "SQL_ASCII", "UTF8"}[rand.N(3)]+"'; end $$; set client_encoding = "+client)
	s.exec(t, fmt.Sprintf(`create table m(%s timestamptz not null, %s int, %s float8, %s bigint, %s text collate "C");
		select create_hypertable('m', %s, chunk_time_interval => interval '7 days');
		create index on m (%[4]s); create index on m (%[5]s);
		alter table m set (timescaledb.compress, timescaledb.compress_segmentby = %[7]s,
		timescaledb.compress_orderby = %[8]s);`,
		q(0), q(1), q(2), q(3), q(4), pg.Literal(names[0]), pg.Literal(q(1)), pg.Literal(q(2)+" desc, "+q(0))))
	rows := func(from, until int) string {
		return fmt.Sprintf("insert into m select '2024-01-04'::timestamptz + i * interval '1 minute', i %% 3, "+
			"i %% 100, i / 2, 't' || i %% 10 from generate_series(%d, %d) i;", from, until)
	}
	s.src.Exec(t, rows(1, 500)+compress+[]string{"", rows(501, 520)}[rand.N(2)])
	s.dst.Exec(t, []string{"", rows(300, 600), rows(300, 600) + compress,
		rows(300, 600) + compress + rows(601, 620)}[rand.N(4)])
	creates := true
	if rand.N(3) == 0 {
		creates = rand.N(2) == 0
		s.as = s.dst.Role(t, "bf_owner")
		s.dst.Exec(t, "alter table m owner to bf_owner; "+
			"do $$ begin execute 'grant create on database '||current_database()||' to bf_owner'; end $$")
		if creates {
			s.dst.Exec(t, "grant create on schema _timescaledb_internal to bf_owner")
		}
	}
	t.Logf("columns %q, as %q who creates %t", names, s.as, creates)
	s.stage(t, stage.Options{Until: "2025-01-01"})
	r := one(t, s.copy(t))
	t.Logf("%s: %s", r.Way, r.WhyNotRaw)
	if strings.Contains(r.WhyNotRaw, "SQLSTATE") {
		t.Errorf("way %q because %q", r.Way, r.WhyNotRaw)
	}
	if line, err := json.Marshal(r); err != nil || strings.ContainsRune(string(line), utf8.RuneError) {
		t.Errorf("result %s, %v", line, err)
	}
	cut := strings.Contains(r.WhyNotRaw, "within a character")
	if encoding == "LATIN1" && cut {
		t.Error("no character of LATIN1 can be cut")
	}
	if creates {
		if want := map[bool]string{false: wayRaw, true: wayFresh}[cut]; r.Way != want {
			t.Errorf("way %q because %q, want %q", r.Way, r.WhyNotRaw, want)
		}
		if got := state(t, s.dst); got != "1" && got != "9" {
			t.Errorf("status %s", got)
		}
	}
	all := "select md5(string_agg(x::text, ';' order by x::text)) from m x"
	if a, b := s.src.Rows(t, all), s.dst.Rows(t, all); !reflect.DeepEqual(a, b) {
		t.Errorf("rows %v, %v", a, b)
	}
	s.ask(t, "m", "after the copy")
	checkNames(t, s)
	again := `insert into m select * from m; delete from m where ` + q(1) + ` = 1; update m set ` + q(2) +
		` = -1 where ` + q(3) + ` = 7;`
	if s.dst.Exec(t, again); !legacy(p) && tsdb.AtLeast(p.Target.Version, "2.18") {
		s.dst.Exec(t, compress)
	}
	s.ask(t, "m", "after changes")
}

// checkNames verifies the copied chunk: by its batches where it came as it was.
func checkNames(t *testing.T, s *sides) {
	t.Helper()
	ctx := context.Background()
	pair, err := verify.Open(ctx, s.src.ConnString, s.dst.ConnString, verify.ByRows, pg.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer pair.Close()
	var tk *task.Task
	if err := queue.Each(ctx, pair.Target.Conn, queue.Selection{State: queue.All}, func(e *queue.Entry) error {
		tk = &e.Task
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if r, err := pair.Verify(ctx, tk); err != nil || r.Status != task.Verified {
		t.Errorf("%s, %q, %v", r.Status, r.Message, err)
	}
}
