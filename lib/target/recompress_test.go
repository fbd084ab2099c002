package target_test

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"bf/lib/stage"
	"bf/lib/testdb"
	"bf/lib/tsdb"
)

// TestCompressedRows copies compressed chunks that cannot travel as they are.
func TestCompressedRows(t *testing.T) {
	for _, c := range []struct {
		name, source, target string // both run after the tables were made, the source's compresses
		later, undo          string // on the target, after staging and after the copy
		way, why             string // without why: way or what the version allows
		everywhere           bool   // on all versions
		incomparable         bool   // their rows sort differently
	}{
		{name: "unordered", source: fill(0, 1000) + compress +
			"update _timescaledb_catalog.chunk set status = status | 2 where status = 1;", target: enable,
			way: wayFresh, why: "unordered"},
		{name: "default added later", source: fill(0, 1000) + compress +
			"alter table m add d text not null default 'old';" + fill(500, 10),
			target: "alter table m add d text not null default 'old';" + enable, way: wayFresh,
			why: `column "d" was added with a default`, everywhere: true},
		{name: "default added later to the target's chunk",
			source: "alter table m add d text;" + fill(0, 1000) + compress,
			target: fill(0, 1) + "alter table m add d text default 'new';" + enable, everywhere: true},
		{name: "compression not enabled", source: fill(0, 1000) + compress, way: wayRows,
			why: "compression is not enabled on the target"},
		{name: "column on the target only", source: fill(0, 1000) + compress,
			target: "alter table m add extra int default 7;" + enable, undo: "alter table m drop extra",
			way: wayFresh, why: `column "extra" exists only on the target`},
		{name: "column on the target only, after staging", source: fill(0, 1000) + compress, target: enable,
			later: "alter table m add extra int;", undo: "alter table m drop extra", way: wayFresh,
			why: `column "extra" exists only on the target`},
		{name: "no binary form", source: "alter table m add x aclitem[];" + fill(0, 1000) +
			"update m set x = array['=r/postgres'::aclitem] where i % 3 = 0;" + compress,
			target: "alter table m add x aclitem[];" + enable, way: wayFresh, why: "has no binary form"},
		{name: "other collation", source: fill(0, 1000) + compress,
			target: `alter table m alter t type text collate "POSIX";` + enable, way: wayFresh,
			why: `column "t" has another collation`, incomparable: true},
		{name: "no chunk of that extent", source: fill(0, 1000) + compress,
			target: "select set_chunk_time_interval('m', interval '3 days');" + fill(0, 1) + enable, way: wayRoot,
			why: "chunk"},
	} {
		t.Run(strings.ReplaceAll(c.name, " ", "-"), func(t *testing.T) {
			testdb.EachFull(t, func(t *testing.T, p testdb.Pair) {
				if !thorough(t, p) && !c.everywhere {
					t.Skip("thorough on the newest and the oldest version only")
				}
				s := both(t, p)
				s.exec(t, table)
				s.src.Exec(t, enable+c.source)
				if c.target != "" {
					s.dst.Exec(t, c.target)
				}
				s.stage(t, stage.Options{Until: "2025-01-01"})
				if c.later != "" {
					s.dst.Exec(t, c.later)
				}
				r := one(t, s.copy(t))
				switch {
				case c.why != "":
					wantWay(t, r, c.way, c.why)
				case r.Way == wayRows && strings.Contains(r.WhyNotRaw, "would be lost"), r.Way == wayRaw,
					// as the version stores a batch without values
					r.Way == wayCompress && strings.Contains(r.WhyNotRaw, "added with a default to the target's chunk"):
				default:
					t.Errorf("way %q because %q", r.Way, r.WhyNotRaw)
				}
				if c.undo != "" {
					s.dst.Exec(t, c.undo)
				}
				if !c.incomparable {
					s.same(t, "after the copy")
				}
				if r.Way == wayFresh && strings.Trim(state(t, s.dst), "19") != "" {
					t.Errorf("status %s", state(t, s.dst))
				}
				noOrphans(t, s.dst)
			})
		})
	}
}

// TestCompressedRoles loads as a role that owns the tables and is no superuser.
func TestCompressedRoles(t *testing.T) {
	testdb.EachFull(t, func(t *testing.T, p testdb.Pair) {
		const other = "alter table m set (timescaledb.compress, timescaledb.compress_orderby = 'ts');"
		const check = "alter table m add check (v < 1e9);"
		const create = "grant create on schema _timescaledb_internal to bf_owner"
		for _, c := range []struct {
			name, target, grant, way, why string
			everywhere                    bool // on all versions
			others                        bool // settings than the source's: ≤ 2.13 compresses the rows
			live                          bool // the chunk is worked with afterwards
		}{
			{name: "may create", target: enable, grant: create, way: wayRaw, live: true},
			{name: "may not create", target: enable, way: wayExisting, everywhere: true, live: true},
			{name: "may not create over rows", target: enable + fill(30, 100), way: wayExisting},
			{name: "may not create over compressed", target: enable + fill(30, 100) + compress + fill(10, 5),
				way: wayExisting},
			{name: "may not create, by rows", target: check + enable, way: wayRowsExisting,
				why: "only the target demands", live: true},
			{name: "may not create, by rows, over compressed",
				target: check + enable + fill(30, 100) + compress + fill(10, 5), way: wayRowsExisting,
				why: "only the target demands"},
			{name: "may create, other settings", target: other, grant: create, way: wayRaw, others: true},
			{name: "may not create, other settings", target: other, way: wayExisting, everywhere: true, others: true},
		} {
			if !thorough(t, p) && !c.everywhere {
				continue
			}
			t.Run(strings.ReplaceAll(c.name, " ", "-"), func(t *testing.T) {
				s := both(t, p)
				s.as = s.dst.Role(t, "bf_owner")
				s.src.Exec(t, table+enable+fill(0, 1000)+compress+fill(200, 20))
				s.dst.Exec(t, "grant create on schema public to bf_owner; set role bf_owner;"+table+c.target)
				s.dst.Exec(t, "reset role; create role reader_"+s.dst.Name+"; grant select on m to reader_"+s.dst.Name)
				defer s.dst.Exec(t, "drop owned by reader_"+s.dst.Name+"; drop role reader_"+s.dst.Name)
				if c.grant != "" {
					s.dst.Exec(t, c.grant)
				}
				before := settings(t, s.dst)
				s.stage(t, stage.Options{Until: "2025-01-01"})
				r := one(t, s.copy(t))
				if legacy(p) && c.others {
					if r.Way != wayFresh && r.Way != wayRowsExisting {
						t.Errorf("way %q because %q", r.Way, r.WhyNotRaw)
					}
				} else {
					wantWay(t, r, c.way, c.why)
				}
				s.same(t, "after the copy")
				if got := state(t, s.dst); !strings.HasPrefix(r.Way, "rows") && got != "9" ||
					r.Way == wayRowsExisting && strings.Trim(got, "19") != "" {
					t.Errorf("status %s", got)
				}
				if after := settings(t, s.dst); !reflect.DeepEqual(before, after) {
					t.Errorf("settings of the hypertable were %v, are %v", before, after)
				}
				if r.Way == wayRaw {
					var owners int
					s.dst.Query1(t, &owners, "select count(*) from pg_class "+
						"where (relname like 'compress%' or relname like '%_compressed') and relkind = 'r' "+
						"and pg_get_userbyid(relowner) = 'bf_owner' and relacl::text like '%reader%'")
					if owners != 1 {
						t.Error("owner or privileges of the compressed relation are not the hypertable's")
					}
				}
				if c.live {
					s.dst.Exec(t, "set role bf_owner")
					s.live(t)
					s.dst.Exec(t, "reset role")
				}
			})
		}
	})
}

// TestCompressedAggregate copies compressed chunks of a materialization
// hypertable, also with settings that the target's does not have.
func TestCompressedAggregate(t *testing.T) {
	testdb.EachFull(t, func(t *testing.T, p testdb.Pair) {
		for name, set := range map[string]string{"same settings": "",
			"other settings": ", timescaledb.compress_segmentby = 'i', timescaledb.compress_orderby = 'h'"} {
			t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
				s := both(t, p)
				// other ids
				s.dst.Exec(t, "create table other(ts timestamptz not null); select create_hypertable('other', 'ts')")
				s.exec(t, table)
				s.src.Exec(t, fill(0, 3000))
				for _, db := range []*testdb.DB{s.src, s.dst} {
					db.Exec(t, `create materialized view hourly
                        with (timescaledb.continuous, timescaledb.materialized_only = true) as
						select time_bucket('1 hour', ts) as h, dev, count(*) as n, sum(i) as i from m group by 1, 2
						with no data`)
				}
				s.src.Exec(t, "alter materialized view hourly set (timescaledb.compress = true)")
				s.dst.Exec(t, "alter materialized view hourly set (timescaledb.compress = true"+set+")")
				s.src.Exec(t, "call refresh_continuous_aggregate('hourly', null, null)")
				s.src.Exec(t, "select compress_chunk(c) from show_chunks('hourly') c")
				const own = "select hypertable_name, attname, segmentby_column_index, orderby_column_index, " +
					"orderby_asc, orderby_nullsfirst from timescaledb_information.compression_settings order by 1, 2"
				before := s.dst.Rows(t, own)
				s.stage(t, stage.Options{Until: "2025-01-01", Choice: tsdb.Choice{Filter: "hourly"}})
				r := one(t, s.copy(t))
				t.Logf("%s %s", r.Way, r.WhyNotRaw)
				// Up to 2.22 options of a materialization hypertable cannot be reset.
				if raw := set == "" || tsdb.AtLeast(p.Target.Version, "2.28"); raw {
					wantWay(t, r, wayRaw, "")
				} else if r.Way != wayRaw && r.Way != wayFresh {
					t.Errorf("way %q", r.Way)
				}
				if after := s.dst.Rows(t, own); !reflect.DeepEqual(before, after) || len(before) == 0 {
					t.Errorf("settings were %v, are %v", before, after)
				}
				for _, q := range []string{
					"select * from hourly order by h, dev",
					"select count(*) from hourly where dev = 1 and h >= '2024-01-05'",
					"select * from hourly order by h desc, dev limit 5",
				} {
					if a, b := s.src.Rows(t, q), s.dst.Rows(t, q); !reflect.DeepEqual(a, b) || len(a) == 0 {
						t.Errorf("%s\nsource %v\ntarget %v", q, a, b)
					}
				}
				s.exec(t, "delete from m; "+fill(0, 500))
				s.exec(t, "call refresh_continuous_aggregate('hourly', '2024-01-01', '2024-02-01')")
				q := "select * from hourly order by h, dev"
				if a, b := s.src.Rows(t, q), s.dst.Rows(t, q); !reflect.DeepEqual(a, b) {
					t.Errorf("after a refresh\nsource %v\ntarget %v", a, b)
				}
			})
		}
	})
}

// TestCompressedExpressions loads over compressed chunks that have an index on an
// expression, whole ones and parts: 2.11 crashes over what other versions do.
func TestCompressedExpressions(t *testing.T) {
	testdb.EachFull(t, func(t *testing.T, p testdb.Pair) {
		if !thorough(t, p) {
			t.Skip("on the newest and the oldest version only")
		}
		for _, until := range []string{"2025-01-01", "2024-01-04 10:00+00"} {
			s := both(t, p)
			s.exec(t, table+"create index on m (lower(t), ts);"+enable)
			s.src.Exec(t, fill(0, 1000))
			s.dst.Exec(t, fill(0, 1000)+"update m set v = 7 where i < 600;"+compress+
				`create function seen() returns trigger language plpgsql as 'begin return null; end';
				create trigger seen after insert on m for each row execute function seen();`)
			s.stage(t, stage.Options{Until: until})
			if legacy(p) {
				s.stuck(t, "would crash over an index on an expression")
			}
			one(t, s.copy(t))
			s.same(t, "after the copy until "+until)
		}
	})
}

// TestCompressedSkewed copies compressed chunks of hypertables that lost columns, so
// that the chunks' columns have other numbers than the hypertable's: into chunks that
// are there (from before, or with rows) and into new ones, partially compressed ones
// with and without an aggregate and a unique key. They end compressed, and work.
func TestCompressedSkewed(t *testing.T) {
	testdb.EachFull(t, func(t *testing.T, p testdb.Pair) {
		n := 2
		if thorough(t, p) {
			n = 6
		}
		rnd := rand.New(rand.NewPCG(13, 6))
		yes := func() bool { return rnd.IntN(2) == 0 }
		for range n {
			aggregated, unique, other := yes(), yes(), yes()
			t.Run(fmt.Sprintf("aggregated=%t,unique=%t,trigger=%t", aggregated, unique, other), func(t *testing.T) {
				s := both(t, p)
				for _, db := range []*testdb.DB{s.src, s.dst} {
					with := strings.Replace(table, "create table m(", "create table m(x1 int, ", 1)
					with = strings.Replace(with, "dev int,", "x2 text, dev int, x3 int,", 1)
					db.Exec(t, with)
					if unique {
						db.Exec(t, "alter table m add unique (ts, dev)")
					}
					if aggregated {
						db.Exec(t, "create materialized view c with (timescaledb.continuous) as "+
							"select time_bucket('1 day', ts), sum(v) from m group by 1 with no data")
					}
					drop := []string{"x1", "x2", "x3"}
					rnd.Shuffle(3, func(i, j int) { drop[i], drop[j] = drop[j], drop[i] })
					for _, c := range drop {
						if db == s.dst && yes() { // a chunk that has the column still
							old := strings.Replace(fill(0, 5), "into m", "into m(ts, dev, v, i, t, u, b, j, e, a)", 1)
							db.Exec(t, strings.ReplaceAll(old, "2024-01-04", fmt.Sprintf("2024-0%s-04", c[1:])))
						}
						db.Exec(t, "alter table m drop "+c)
					}
					db.Exec(t, enable)
				}
				s.src.Exec(t, fill(0, 500)+strings.ReplaceAll(fill(0, 500), "2024-01-04", "2024-02-04")+
					strings.ReplaceAll(fill(0, 500), "2024-01-04", "2024-03-04")+compress+
					strings.ReplaceAll(fill(600, 40), "2024-01-04", "2024-02-04"))
				want := wayRaw
				if other { // by rows, through a trigger
					want = wayCompress
					s.dst.Exec(t, "create function pass() returns trigger language plpgsql as 'begin return new; "+
						"end'; create trigger pass before insert on m for each row execute function pass()")
				}
				s.stage(t, stage.Options{Until: "2025-01-01"})
				rs := s.copy(t)
				if len(rs) != 3 {
					t.Fatalf("%d results", len(rs))
				}
				for _, r := range rs {
					if r.Way != want {
						t.Errorf("way %q because %q", r.Way, r.WhyNotRaw)
					}
				}
				s.same(t, "after the copy")
				if got := state(t, s.dst); strings.Trim(got, "19,") != "" {
					t.Errorf("status %s", got)
				}
				if !unique { // else it would insert twins
					s.live(t)
				}
			})
		}
	})
}
