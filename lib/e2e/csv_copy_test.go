package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"bf/lib/csv"
	"bf/lib/testdb"
)

// TestCSVAgainstCOPY lets the server judge package csv: of random files in random
// dialects, COPY ... (format csv) of the file and COPY of the text that package csv makes
// of it give the same rows. What the server refuses may not pass, but for line ends of both
// kinds in one file.
func TestCSVAgainstCOPY(t *testing.T) {
	db := testdb.New(t, testdb.Installs(t)[0], "target")
	db.Exec(t, "create table sent (n int generated always as identity, a text, t bigint, b text);"+
		" create table made (like sent including identity)")
	ctx, conn := context.Background(), db.Conn(t)
	rnd := rand.New(rand.NewPCG(16, 16))
	accepted := 0
	for i := range 800 {
		d, file := randomCSV(rnd)
		text, err := copyText(d, file)
		if err != nil && i%8 != 0 { // the server is asked about these as well, sometimes
			continue
		}
		db.Exec(t, "truncate sent, made restart identity")
		with := "(format csv, encoding 'utf8', null " + quoted(d.Null) + ", delimiter " + quoted(d.Delimiter) +
			", quote " + quoted(d.Quote) + ", escape " + quoted(d.Escape) + ")"
		_, refused := conn.PgConn().CopyFrom(ctx, strings.NewReader(file), "copy sent (a, t, b) from stdin "+with)
		mixed := strings.Contains(fmt.Sprint(refused), "newline") ||
			strings.Contains(fmt.Sprint(refused), "carriage return")
		switch {
		case err != nil && refused == nil && !strings.Contains(err.Error(), "carriage return"):
			t.Errorf("%+v %q: the server takes it, csv says %v", d, file, err)
		case err == nil && refused != nil && !mixed:
			t.Errorf("%+v %q: taken as %q, the server says %v", d, file, text, refused)
		}
		if err != nil || refused != nil {
			continue
		}
		accepted++
		_, err = conn.PgConn().CopyFrom(ctx, strings.NewReader(text), "copy made (a, t, b) from stdin")
		if err != nil {
			t.Errorf("%+v %q: made %q: %v", d, file, text, err)
			continue
		}
		var differ int
		db.Query1(t, &differ, "select count(*) from (table sent except all table made "+
			"union all (table made except all table sent)) _")
		if differ != 0 {
			t.Errorf("%+v %q: made %q: %d rows differ", d, file, text, differ)
		}
	}
	if accepted < 200 {
		t.Errorf("only %d files were accepted by both", accepted)
	}
}

func quoted(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// randomCSV makes a file of three columns that is likely to be good.
func randomCSV(rnd *rand.Rand) (csv.Dialect, string) {
	pick := func(of ...string) string { return of[rnd.IntN(len(of))] }
	d := csv.Dialect{Delimiter: pick(",", ";", "\t", "|"), Quote: pick(`"`, `'`), Null: pick("", `\N`, "NULL", "-")}
	d.Escape = pick(d.Quote, d.Quote, `\`)
	end := pick("\n", "\n", "\r\n")
	value := func() string {
		var s strings.Builder
		for range rnd.IntN(4) {
			s.WriteString(pick("a", "ä", "€", " ", `\`, `\n`, `\N`, `.`, "0", "-", "NULL", "'", `"`, "", "\t", "😀"))
		}
		return s.String()
	}
	quote := func(s string) string {
		s = strings.ReplaceAll(s, d.Escape, d.Escape+d.Escape)
		if d.Escape != d.Quote {
			s = strings.ReplaceAll(s, d.Quote, d.Escape+d.Quote)
		}
		return d.Quote + s + d.Quote
	}
	field := func() string {
		switch s := value(); rnd.IntN(5) {
		case 0:
			return d.Null
		case 1:
			return quote(s + pick("\n", "\r\n", d.Delimiter, d.Quote, "", `\.`) + value())
		case 2:
			return s + quote(value()) + value() // quotes within a field
		case 3:
			return quote(s)
		default:
			return strings.NewReplacer(d.Quote, "", d.Delimiter, "").Replace(s)
		}
	}
	var b strings.Builder
	for range 1 + rnd.IntN(4) {
		b.WriteString(field() + d.Delimiter + fmt.Sprint(rnd.IntN(2000)-1000) + d.Delimiter + field())
		if rnd.IntN(60) == 0 {
			b.WriteString(pick(d.Delimiter, d.Quote, "\r", "\n"))
		}
		b.WriteString(end)
	}
	s := b.String()
	if rnd.IntN(4) == 0 {
		s = strings.TrimSuffix(s, end)
	}
	return d, s
}

// copyText is what package csv makes of a file with columns a, t, b.
func copyText(d csv.Dialect, file string) (string, error) {
	f, err := d.Format()
	if err != nil {
		return "", err
	}
	r := csv.NewReader(strings.NewReader(file), f)
	columns := []csv.Column{{Name: "a", Type: "text"}, {Name: "t", Type: "bigint"}, {Name: "b", Type: "text"}}
	if err := r.Columns(columns, "t"); err != nil {
		return "", err
	}
	var out bytes.Buffer
	for {
		row, err := r.Next()
		switch {
		case err == io.EOF:
			return out.String(), nil
		case err != nil:
			return "", err
		}
		out.Write(row.Text)
	}
}

// TestCSVTimesAgainstServer: of random times in many forms, whatever package csv reads is
// what the server's cast makes of it under UTC, and TimescaleDB makes the same internal
// integer of it. With --zone it is what a session in that zone makes of it.
func TestCSVTimesAgainstServer(t *testing.T) {
	db := testdb.New(t, testdb.Installs(t)[0], "target")
	rnd := rand.New(rand.NewPCG(40, 40))
	types := []string{"timestamp with time zone", "timestamp without time zone", "date",
		"smallint", "integer", "bigint"}
	for _, zone := range []string{"", "Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe"} {
		f, err := csv.Dialect{Zone: zone}.Format()
		if err != nil {
			t.Fatal(err)
		}
		for _, typ := range types {
			clock, err := f.Clock(typ)
			if err != nil {
				t.Fatal(err)
			}
			var values []string
			var want []int64
			for range 4000 {
				v := randomTime(rnd, typ)
				got, err := clock.Parse([]byte(v))
				if err != nil {
					continue
				}
				if !got.AsIs { // it travels as it is written anew
					back, err := clock.Parse(clock.Append(nil, got.Internal))
					if err != nil || back != (csv.Time{Internal: got.Internal, AsIs: true}) {
						t.Errorf("%s %q: %s: %v, %v", typ, v, clock.Append(nil, got.Internal), back, err)
					}
				}
				values, want = append(values, v), append(want, got.Internal)
			}
			if len(values) < 300 {
				t.Errorf("%s in %q: only %d of the values were read", typ, zone, len(values))
			}
			compareTimes(t, db, typ, zone, values, want)
		}
	}
}

// compareTimes asks a session in the zone for the internal integers of values.
func compareTimes(t *testing.T, db *testdb.DB, typ, zone string, values []string, want []int64) {
	t.Helper()
	if zone == "" {
		zone = "UTC"
	}
	conn := db.Conn(t)
	if _, err := conn.Exec(context.Background(), "set timezone = "+quoted(zone)); err != nil {
		t.Fatal(err)
	}
	var internal string // ≤ 2.11: in another schema
	db.Query1(t, &internal, "select min(oid::regproc::text) from pg_proc where proname = 'time_to_internal'")
	rows, err := conn.Query(context.Background(), "select "+internal+"(cast(v as "+typ+")) "+
		"from unnest($1::text[]) with ordinality _(v, n) order by n",
		pgx.QueryExecModeExec, values)
	if err != nil {
		t.Fatal(err)
	}
	got, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		t.Fatalf("%s in %s: the server refuses one: %v", typ, zone, err)
	}
	for i, v := range values {
		if got[i] != want[i] {
			t.Errorf("%s %q in %s: read as %d, the server says %d", typ, v, zone, want[i], got[i])
		}
	}
}

// randomTime is a value that may be a time of that type, or near one.
func randomTime(rnd *rand.Rand, typ string) string {
	pick := func(of ...string) string { return of[rnd.IntN(len(of))] }
	if slices.Contains([]string{"smallint", "integer", "bigint"}, typ) {
		return pick("", "-", "+", " ") +
			pick("0", "00", "1", "32767", "32768", "2147483647", "2147483648", "9223372036854775807",
				"9223372036854775808", fmt.Sprint(rnd.IntN(70000)), "1.0", "1e3", "0x1", "1_0", "") +
			pick("", "", " ")
	}
	year := pick("2024", "2024", fmt.Sprintf("%04d", rnd.IntN(10000)), "1970", "0001", "9999", "24", "12024")
	date := year + "-" + pick("03", "10", "02", fmt.Sprintf("%02d", rnd.IntN(14)), "1") +
		"-" + pick("31", "27", "29", fmt.Sprintf("%02d", rnd.IntN(33)), "7")
	clock := pick(" ", " ", "T", "t", "  ") + pick("02", "00", "24", fmt.Sprintf("%02d", rnd.IntN(26)), "5") +
		":" + pick("30", "00", fmt.Sprintf("%02d", rnd.IntN(62)))
	seconds := ":" + pick("00", "59", "60", fmt.Sprintf("%02d", rnd.IntN(62))) +
		pick("", "", ".5", ".123456", ".1234560", ".1234567", ".", ",5")
	offset := pick("", "", "Z", "+00", "-01", "+05:30", "+0530", "-09:30:15", "+15:59:59", "+16",
		" UTC", " +01", "z", " CET", "+1", "+00:00")
	switch rnd.IntN(6) {
	case 0:
		return date
	case 1:
		return date + clock + offset
	case 2:
		return pick("infinity", "-infinity", "now", "epoch", "today", "allballs", "", "20240101", "2024001",
			"J2451187", "1/2/2024", "Infinity", date+" BC", date+clock+seconds+" AM")
	}
	if typ == "date" && rnd.IntN(2) == 0 {
		return date + " 00:00:00" + pick("", ".0", "Z")
	}
	return date + clock + seconds + offset
}
