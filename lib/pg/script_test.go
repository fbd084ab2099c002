package pg

import (
	"errors"
	"fmt"
	"io"
	"math/rand"
	"strings"
	"testing"
)

// TestScript puts scripts together at random from statements in which everything
// occurs that could be taken for an end, and takes them apart.
func TestScript(t *testing.T) {
	statements := []string{
		`SELECT 1;`, `SET a = 'x;y''; z';`, `SELECT E'\';' AS "a"";b";`, `SELECT 'C:\';`,
		"CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $_$begin; $$;$$ -- '\nend;$_$;",
		"CREATE FUNCTION \"f;\"(a int) RETURNS int LANGUAGE sql\n    BEGIN ATOMIC\n " +
			"SELECT CASE WHEN (a = 1) THEN 2 END;\n SELECT 3;\nEND;",
		"CREATE OR REPLACE PROCEDURE p() BEGIN ATOMIC SELECT begin_x FROM t; END;",
		"CREATE RULE r AS ON INSERT TO t DO INSTEAD ( INSERT INTO a VALUES (1); DELETE FROM b; );",
		"SELECT /* ; /* ' */ ; */ 1 - 2 / 3, $1, a$b;", "SELECT 1 -- it's; so\n;",
		"CREATE TABLE begin (\n    \"case\" text DEFAULT 'end;'\n);",
		"COMMENT ON TABLE t IS '\n-- no comment;\n\\! no command';",
		"CREATE FUNCTION e() RETURNS text LANGUAGE sql AS 'select $$;$$';", "COPY t (\"a;\nb\") FROM stdin;",
	}
	rows := []string{"", "1\t2\n", "\\\\.\n;\n" + strings.Repeat("x", 200000) + "\\.\n'\n"}
	for seed := range int64(300) {
		r := rand.New(rand.NewSource(seed))
		var text strings.Builder
		var want, got []string
		text.WriteString("--\n-- head\n--\n\n\\restrict abc\n\n")
		for range r.Intn(20) {
			s := statements[r.Intn(len(statements))]
			want = append(want, s)
			fmt.Fprintf(&text, "\n--\n-- Name: %d\n--\n\n%s\n", len(want), s)
			if strings.HasPrefix(s, "COPY") {
				data := rows[r.Intn(len(rows))]
				text.WriteString(data + "\\.\n\n")
				want = append(want, data)
			}
		}
		text.WriteString("\\unrestrict abc\n\n")
		script := NewScript(strings.NewReader(text.String()))
		for {
			st, err := script.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			got = append(got, st.SQL)
			if !strings.Contains(st.Comment, fmt.Sprintf("-- Name: %d\n", len(got))) {
				t.Errorf("seed %d: comment %q before %s", seed, st.Comment, st.SQL)
			}
			if st.CopyIn() {
				b, err := io.ReadAll(script.Rows())
				if err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
				got = append(got, string(b))
			}
		}
		if strings.Join(want, "\x00") != strings.Join(got, "\x00") {
			t.Fatalf("seed %d: %q, want %q", seed, got, want)
		}
		// A script that is cut anywhere gives whole statements or none.
		cut := text.String()[:r.Intn(text.Len())]
		script = NewScript(strings.NewReader(cut))
		got = nil
		for {
			st, err := script.Next()
			if err != nil {
				break
			}
			got = append(got, st.SQL)
			if st.CopyIn() {
				b, err := io.ReadAll(script.Rows())
				if err != nil {
					break
				}
				got = append(got, string(b))
			}
		}
		if len(got) > len(want) || strings.Join(want[:len(got)], "\x00") != strings.Join(got, "\x00") {
			t.Errorf("seed %d: %q in a part", seed, got)
		}
	}
}

// TestScriptCommands: a command of psql never passes.
func TestScriptCommands(t *testing.T) {
	for _, s := range []string{"\\! id\n", "SELECT 1;\n\\connect x\n", "COPY t FROM stdin;\n\\.\n\\! id\n"} {
		script := NewScript(strings.NewReader(s))
		for {
			st, err := script.Next()
			if err != nil {
				if !strings.Contains(err.Error(), "psql command") {
					t.Errorf("%q: %v", s, err)
				}
				break
			}
			if st.CopyIn() {
				io.Copy(io.Discard, script.Rows())
			}
		}
	}
}
