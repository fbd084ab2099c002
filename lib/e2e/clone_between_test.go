package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"bf/lib/testdb"
	"bf/lib/tsdb"
)

// roles of testdata/clone, on both servers.
const (
	cloneOwner  = `"bf Ownér"`
	cloneReader = "bf_reader"
)

// part reads SQL of testdata/clone.
func part(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "clone", name))
	if err != nil {
		t.Fatal(err)
	}
	return strings.NewReplacer("{owner}", cloneOwner, "{reader}", cloneReader).Replace(string(b))
}

// withRoles makes the roles on the server of a database. They stay: other tests
// on it may use them at the same time.
func withRoles(t testing.TB, dbs ...*testdb.DB) {
	t.Helper()
	for _, db := range dbs {
		for _, role := range []string{cloneOwner, cloneReader} {
			db.Exec(t, "do $$ begin create role "+role+
				" login; exception when duplicate_object or unique_violation then null; end $$")
		}
	}
}

// furnish makes the schema with all that a version and an edition have.
func furnish(t testing.TB, db *testdb.DB, version string, full bool) {
	t.Helper()
	db.Exec(t, part(t, "schema.sql"))
	if tsdb.AtLeast(version, "2.16") {
		db.Exec(t, `alter table "Größe"."Mess Werte" replica identity using index "Mess Werte_pkey"`)
		db.Exec(t, `create table "Größe"."Notiz" (id int primary key, "Zeit" timestamptz, "Gerät" int,
            foreign key ("Zeit", "Gerät") references "Größe"."Mess Werte")`)
	}
	if full {
		db.Exec(t, part(t, "full.sql"))
		if tsdb.AtLeast(version, "2.17") {
			db.Exec(t, `set timescaledb.enable_chunk_skipping = on;
                select enable_chunk_skipping('"Größe"."Mess Werte"', 'id')`)
		}
	}
}

// catalogs are the lines of catalogs.sql for a database.
func catalogs(t testing.TB, db *testdb.DB) []string {
	t.Helper()
	var jobs string
	db.Query1(t, &jobs, "select coalesce(to_regclass('_timescaledb_catalog.bgw_job'), "+
		"to_regclass('_timescaledb_config.bgw_job'))::text")
	more := ""
	for _, m := range []struct{ table, key string }{
		{"chunk_column_stats", "hypertable_id"}, {"hypertable_cagg_settings", "hypertable_id"},
		{"hypertable_compression", "hypertable_id"}, {"compression_settings", "relid"}} {
		var there bool
		db.Query1(t, &there, "select to_regclass('_timescaledb_catalog."+m.table+"') is not null")
		on := "n.id = x.hypertable_id"
		if m.key == "relid" {
			on = "format('%I.%I', n.schema_name, n.table_name)::regclass = x.relid"
		}
		if there {
			more += fmt.Sprintf(" union all select '%[1]s ' || n.name, (to_jsonb(x) - '{id,%[2]s}'::text[])::text "+
				"from _timescaledb_catalog.%[1]s x join names n on %[3]s", m.table, m.key, on)
		}
	}
	return sorted(t, db, strings.NewReplacer("{jobs}", jobs, "{more}", more).Replace(part(t, "catalogs.sql")))
}

// dumped are the lines of pg_dump about the users' objects, and those about
// TimescaleDB's that are theirs in part.
func dumped(t testing.TB, db *testdb.DB, bin string) []string {
	t.Helper()
	cmd := exec.Command(filepath.Join(bin, "pg_dump"), "-s", "--exclude-schema=_timescaledb_*", "-d", db.ConnString)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, stderr.String())
	}
	text := regexp.MustCompile(`(?m)^(\\(un)?restrict .*|-- .*|--|)\n`).ReplaceAllString(string(out), "")
	text = regexp.MustCompile(`(_materialized_hypertable_|_partial_view_|_direct_view_|`+
		`invalidation_trigger\('?|cagg_watermark\()\d+`).ReplaceAllString(text, "${1}N")
	ls := lines(text)
	slices.Sort(ls) // the numbers decide in which order views come
	return ls
}

// pause pauses all jobs in the catalog: alter_job of some versions does not.
func pause(t testing.TB, db *testdb.DB) {
	t.Helper()
	var jobs string
	db.Query1(t, &jobs, "select coalesce(to_regclass('_timescaledb_catalog.bgw_job'), "+
		"to_regclass('_timescaledb_config.bgw_job'))::text")
	db.Exec(t, "update "+jobs+" set scheduled = false where id >= 1000")
}

// moves are the pairs that exist among: an old version to a newer one, from one
// PostgreSQL to the next. Where none of them is there, the oldest goes to the
// newest.
func moves(t testing.TB) (ps []testdb.Pair) {
	all := testdb.Installs(t)
	find := func(version string) *testdb.Install {
		i := slices.IndexFunc(all, func(in testdb.Install) bool { return in.Full && in.Version == version })
		if i < 0 {
			return nil
		}
		return &all[i]
	}
	for _, m := range [][2]string{{"2.11.2", "2.28.3"}, {"2.14.2", "2.22.1"}, {"2.17.2", "2.29.2"}} {
		if s, t := find(m[0]), find(m[1]); s != nil && t != nil {
			ps = append(ps, testdb.Pair{Source: *s, Target: *t})
		}
	}
	if ps == nil {
		full := slices.DeleteFunc(slices.Clone(all), func(in testdb.Install) bool { return !in.Full })
		if len(full) < 2 {
			t.Skip("needs two versions of the full edition")
		}
		ps = append(ps, testdb.Pair{Source: full[len(full)-1], Target: full[0]})
	}
	return ps
}

// TestCloneBetween clones a schema that has everything to a newer version, and
// compares it with the same schema made on the target by hand; clones the clone,
// in both ways, and finds it unchanged; backfills, and finds all rows.
func TestCloneBetween(t *testing.T) {
	for _, v := range moves(t) {
		t.Run(v.String(), func(t *testing.T) {
			p := newPair(t, v)
			native := testdb.New(t, v.Target, "target")
			withRoles(t, p.src, p.dst)
			furnish(t, p.src, v.Source.Version, true)
			furnish(t, native, v.Source.Version, true)
			p.src.Exec(t, part(t, "rows.sql"))

			stderr, status := output(t, p.clone(t))
			if status != 0 {
				t.Fatal(stderr)
			}
			jobs := 12
			if strings.Contains(stderr, "cannot pause it: ") {
				native.Exec(t, "select delete_job(job_id) from timescaledb_information.jobs "+
					"where proc_name = 'policy_refresh_continuous_aggregate' and hypertable_name = 'm Tag'")
				jobs--
			}
			pause(t, native)
			if want := fmt.Sprintf("hypertables: 6, continuous aggregates: 5, jobs: %d;",
				jobs); !strings.Contains(stderr, want) || !strings.Contains(stderr, "after the backfill: select ") {
				t.Errorf("no %q in %s", want, stderr)
			}
			bin := v.Target.BinDir
			want := catalogs(t, native)
			diff(t, "catalogs", want, catalogs(t, p.dst))
			diff(t, "pg_dump", dumped(t, native, bin), dumped(t, p.dst, bin))
			p.same(t, `select "Name", z, p, rest from "Größe"."Gerät"`)
			p.same(t, `select tableoid::regclass, * from "Größe".jahr`)
			p.same(t, `select last_value, is_called from "Größe"."Nr."`)

			clone := dumped(t, p.dst, bin)
			for _, args := range [][]string{nil, {"--schema-only"}} {
				q := &pair{src: p.dst, dst: testdb.New(t, v.Target, "source"), source: p.dst.ConnString}
				q.target = q.dst.ConnString
				withRoles(t, q.dst)
				wantOutput(t, q.clone(t, args...), 0)
				diff(t, fmt.Sprint("catalogs of a clone of the clone ", args), want, catalogs(t, q.dst))
				diff(t, fmt.Sprint("pg_dump of a clone of the clone ", args), clone, dumped(t, q.dst, bin))
			}

			wantOutput(t, p.script(t, "backfill", "--until", "2024-05-03", "--filter",
				`Mess|J son|tage|Nackt|Stunde|Zonen`), 0)
			wantOutput(t, p.script(t, "backfill", "--until", "2000", "--filter", `zähler|zählung`), 0)
			p.same(t, `select * from "Größe"."Mess Werte" where "Zeit" < '2024-05-03Z'`)
			p.same(t, `select * from zähler where n < 2000`)
			p.same(t, `select doc, v from "J son"`)
			p.same(t, `select * from "Größe"."z Stunde" where "Eimer" < '2024-05-03Z'`)
		})
	}
}
