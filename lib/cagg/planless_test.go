package cagg_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"bf/lib/testdb"
	"bf/lib/tsdb"
)

// dumped makes a target of a dump of everything, rows included.
func dumped(t *testing.T, p testdb.Pair, source *testdb.DB) *testdb.DB {
	t.Helper()
	db := testdb.New(t, p.Target, "target")
	dump := filepath.Join(t.TempDir(), "dump")
	for _, cmd := range [][]string{
		{"pg_dump", "-Fc", "-f", dump, "-d", source.ConnString},
		{"pg_restore", "-d", db.ConnString, dump},
	} {
		if cmd[0] == "pg_restore" {
			db.Exec(t, "select timescaledb_pre_restore()")
		}
		out, err := exec.Command(filepath.Join(p.Source.BinDir, cmd[0]), cmd[1:]...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", cmd[0], err, out)
		}
	}
	db.Exec(t, "select timescaledb_post_restore()")
	os.Remove(dump)
	return db
}

// relations lists the schemas and relations of a database that no refresh makes.
func relations(t *testing.T, db *testdb.DB) string {
	t.Helper()
	return fmt.Sprint(db.Rows(t, `select nspname, relname from pg_namespace n left `+
		`join pg_class c on relnamespace = n.oid
        where nspname not like 'pg\_t%' and coalesce(relname, `+
		`'') !~ '^(\d+_\d+_)?(_hyper_|_materialized_|pg_toast|compress_hyper)' order by 1, 2`))
}

// afterDump is what comes after a dump: on the source it is refreshed as well.
const afterDump = `insert into m select t, d, extract(epoch from t)::bigint % 777 + d
        from generate_series('2024-02-14 00:10+00'::timestamptz, '2024-03-16 12:00+00', '20 minutes') t,
        generate_series(1, 2) d`

// wantRefreshed runs bf-caggs: it creates nothing, keeps no rows, and without arguments
// leaves the aggregates as they are on the source.
func wantRefreshed(t *testing.T, source, target *testdb.DB, args string) {
	t.Helper()
	want := contents(t, source)
	before := relations(t, target)
	planned, _ := ok(t, source, target, "bf-caggs --dry-run "+args)
	out, _ := ok(t, source, target, "bf-caggs "+args)
	if len(windows(t, planned)) == 0 || len(windows(t, out)) == 0 {
		t.Error("nothing was planned, or nothing refreshed")
	}
	for _, w := range windows(t, out) {
		if w.Keep {
			t.Errorf("a window keeps its rows: %v", w)
		}
	}
	if after := relations(t, target); after != before {
		t.Errorf("something was created:\n%s\n%s", before, after)
	}
	if args != "" {
		return
	}
	same(t, "after bf-caggs", want, contents(t, target))
	sameMarks(t, source, target)
	if out, _ := ok(t, source, target, "bf-caggs"); out != "" {
		t.Errorf("a second bf-caggs found something to do: %s", out)
	}
}

// wantMonths is wantRefreshed where there are months on days. < 2.12: only a refresh of
// everything is right for those. It is refused where buckets might be lost; the others
// are refreshed.
func wantMonths(t *testing.T, p testdb.Pair, source, target *testdb.DB) {
	t.Helper()
	if tsdb.AtLeast(p.Source.Version, "2.12") {
		wantRefreshed(t, source, target, "")
		return
	}
	want := contents(t, source)
	_, said, err := sh(t, source, target, "bf-caggs")
	if err == nil || !strings.Contains(said, "target: public.monthly: only a refresh of everything") ||
		!strings.Contains(said, "hint: stage a backfill") {
		t.Errorf("%v: %s", err, said)
	}
	delete(want, "monthly")
	delete(want, "monthly, materialized")
	same(t, "after bf-caggs", want, contents(t, target))
}

// Without a staged backfill bf-caggs refreshes from the target's last refresh to
// the source's, and creates nothing.
func TestPlanless(t *testing.T) {
	testdb.EachFull(t, func(t *testing.T, p testdb.Pair) {
		t.Run("hand made", func(t *testing.T) {
			source, target := newSource(t, p), handMade(t, p)
			target.Exec(t, data)
			wantRefreshed(t, source, target, "")
		})
		t.Run("owner", func(t *testing.T) {
			source, target := newSource(t, p), testdb.New(t, p.Target, "target")
			target.ConnString = target.Role(t, "app")
			for _, sql := range []string{"set role app", schema, data} {
				target.Exec(t, sql)
			}
			wantRefreshed(t, source, target, "")
		})
	})
}

// TestPlanlessDumped: the target was made of a dump, which remembers refreshes of its own.
func TestPlanlessDumped(t *testing.T) {
	testdb.EachFull(t, func(t *testing.T, p testdb.Pair) {
		t.Run("dumped", func(t *testing.T) {
			source := newSource(t, p, compression, compress)
			target := dumped(t, p, source)
			source.Exec(t, afterDump)
			target.Exec(t, afterDump)
			refreshAll(t, source)
			wantMonths(t, p, source, target)
		})
		// Buckets whose raw rows are gone stay, whatever is logged.
		t.Run("trimmed", func(t *testing.T) {
			source := newSource(t, p, trim)
			target := dumped(t, p, source)
			source.Exec(t, afterDump)
			target.Exec(t, afterDump)
			for _, v := range views {
				source.Exec(t, "call refresh_continuous_aggregate('"+v+"', '2024-02-01', null)")
			}
			wantMonths(t, p, source, target)
		})
	})
}

// TestPlanlessCascades: --filter, -D and -U choose which aggregates are refreshed.
func TestPlanlessCascades(t *testing.T) {
	testdb.EachFull(t, func(t *testing.T, p testdb.Pair) {
		source, target := newSource(t, p), handMade(t, p)
		target.Exec(t, data)
		wantRefreshed(t, source, target, `--filter '\.daily$' -D`)
		want, got := contents(t, source), contents(t, target)
		for _, v := range []string{"hourly", "daily"} {
			same(t, "the filter and down",
				map[string][][]string{v + ", materialized": want[v+", materialized"]}, got)
		}
		for _, v := range []string{"weekly", "monthly"} {
			if n := len(got[v+", materialized"]); n > 0 {
				t.Errorf("%s was refreshed: %d rows", v, n)
			}
		}
		wantRefreshed(t, source, target, `--filter '\.daily$' -U`)
		same(t, "and up", map[string][][]string{"monthly": want["monthly"]}, contents(t, target))
	})
}

// TestPlanlessNoSource: bf-caggs asks for --source; a run before the target has raw rows
// hides none that come later.
func TestPlanlessNoSource(t *testing.T) {
	testdb.EachFull(t, func(t *testing.T, p testdb.Pair) {
		source, target := newSource(t, p), handMade(t, p)
		if _, said, err := sh(t, source, target, "env -u BF_SOURCE bf-caggs"); err == nil ||
			!strings.Contains(said, "hint: give --source") {
			t.Errorf("%v: %s", err, said)
		}
		// Nothing to compute it from yet: the watermark must not hide what comes.
		ok(t, source, target, "bf-caggs")
		target.Exec(t, data)
		wantRefreshed(t, source, target, "")
	})
}
