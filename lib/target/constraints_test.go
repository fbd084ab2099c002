package target_test

import (
	"context"
	"reflect"
	"strings"
	"testing"

	"bf/lib/pg"
	"bf/lib/stage"
	"bf/lib/task"
	"bf/lib/testdb"
)

// TestCompressedConstraints copies compressed chunks to targets that do more
// with a row than the source: what nobody would see in a compressed relation
// makes the rows travel, or is checked.
func TestCompressedConstraints(t *testing.T) {
	const devices = "create table d(id int primary key); insert into d select generate_series(0, 9);"
	for _, c := range []struct {
		name, both, source, target string // before compression, on both sides and on one
		way, why                   string
		fires                      bool // a trigger, for each row
	}{
		{name: "the same on both sides", both: "alter table m add check (i >= 0); create unique index on m (dev, ts);",
			way: wayRaw},
		{name: "a check on the source only", source: "alter table m add check (i >= 0);", way: wayRaw},
		{name: "a check on the target only", target: "alter table m add check (i >= 0);", way: wayFresh,
			why: "only the target demands of its rows: CHECK ((i >= 0))"},
		{name: "a unique index on the target only", target: "create unique index on m (dev, ts);", way: wayFresh,
			why: "only the target demands of its rows: UNIQUE btree (dev, ts)"},
		{name: "not null on the target only", target: "alter table m alter i set not null;", way: wayFresh,
			why: "only the target demands of its rows: i NOT NULL"},
		{name: "a row trigger", target: "create table seen(n int); " +
			"create function saw() returns trigger language plpgsql as $$ begin insert into public.seen values (1); " +
			"return new; end $$;" +
			"create trigger saw before insert on m for each row execute function saw();", way: wayCompress,
			why: "row triggers of the target have to fire", fires: true},
		{name: "a foreign key", both: devices + "alter table m add foreign key (dev) references d;", way: wayRaw},
		{name: "a foreign key on the target only",
			target: devices + "alter table m add foreign key (dev) references d;", way: wayRaw},
		{name: "a foreign key on a compressed column",
			target: "create table d(id bigint primary key); insert into d select generate_series(0, 2000); " +
				"alter table m add foreign key (i) references d;",
			way: wayFresh, why: `cannot be checked: column "i" is compressed`},
	} {
		t.Run(strings.ReplaceAll(c.name, " ", "-"), func(t *testing.T) {
			testdb.EachFull(t, func(t *testing.T, p testdb.Pair) {
				if !thorough(t, p) {
					t.Skip("on the newest and the oldest version only")
				}
				s := both(t, p)
				s.exec(t, table+c.both)
				_, err := s.dst.Conn(t).Exec(context.Background(), c.target+enable)
				if pg.Code(err) == pg.NotSupported {
					t.Skipf("not here: %v", err)
				} else if err != nil {
					t.Fatal(err)
				}
				s.src.Exec(t, c.source+enable+fill(0, 1000)+compress+fill(1200, 20))
				s.stage(t, stage.Options{Until: "2025-01-01"})
				// As if the difference had come after staging.
				s.dst.Exec(t, "update __backfill.task set rows_only = null")
				r := one(t, s.copy(t))
				wantWay(t, r, c.way, c.why)
				s.same(t, "after the copy")
				if c.fires {
					var n int64
					if s.dst.Query1(t, &n, "select count(*) from seen"); n != r.Rows {
						t.Errorf("the trigger fired for %d of %d rows", n, r.Rows)
					}
				}
			})
		})
	}
}

// TestCompressedOrphans copies a compressed chunk with rows whose foreign key
// names a row that the target does not have: nothing of it arrives.
func TestCompressedOrphans(t *testing.T) {
	testdb.EachFull(t, func(t *testing.T, p testdb.Pair) {
		if !thorough(t, p) {
			t.Skip("on the newest and the oldest version only")
		}
		for _, as := range []string{"", "bf_owner"} {
			s := both(t, p)
			s.exec(t, "create table d(id int primary key); insert into d select generate_series(0, 9);"+table+
				"alter table m add foreign key (dev) references d;"+enable)
			s.src.Exec(t, fill(0, 1000)+"insert into m(ts, i) values ('2024-01-04 00:00:30', 5);"+compress)
			s.dst.Exec(t, "delete from d where id = 3")
			if as != "" {
				s.as = s.dst.Role(t, as)
				s.dst.Exec(t, "alter table m owner to bf_owner; grant "+
					"create on schema _timescaledb_internal to bf_owner; grant create on schema public to bf_owner; "+
					"grant select on d to bf_owner")
			}
			s.stage(t, stage.Options{Until: "2025-01-01"})
			rs, errs := s.lane(t, nil)
			if as != "" {
				// It may not lock the rows of d: then the rows have to travel.
				if errs[0] == nil || !strings.Contains(errs[0].Error(),
					"this helps: grant select, update on \"public\".\"d\" to bf_owner") {
					t.Errorf("%v", errs[0])
				}
				rs, errs = s.lane(t, nil)
			}
			if errs[0] == nil || rs[0].Status != task.Failed || !strings.Contains(errs[0].Error(), "23503") ||
				!strings.Contains(errs[0].Error(), "(dev)=(3) is not ") {
				t.Errorf("%+v, %v", rs[0], errs[0])
			}
			var n int
			if s.dst.Query1(t, &n, "select count(*) from m"); n != 0 {
				t.Errorf("%d rows arrived", n)
			}
			s.dst.Exec(t, "insert into d values (3)")
			r := one(t, s.copy(t))
			if as == "" {
				wantWay(t, r, wayRaw, "")
			}
			s.same(t, "after the copy")
			if _, err := s.dst.Conn(t).Exec(context.Background(), "delete from d where id = 3"); err == nil {
				t.Error("a referenced row was deleted")
			}
		}
	})
}

// TestCompressedReferenced copies a compressed chunk over rows that other tables
// of the target reference: they are updated in place.
func TestCompressedReferenced(t *testing.T) {
	testdb.EachFull(t, func(t *testing.T, p testdb.Pair) {
		for _, c := range []struct{ name, target, way string }{
			{"rows", "", wayRows},
			{"batches", compress, wayRoot},
		} {
			t.Run(c.name, func(t *testing.T) {
				s := both(t, p)
				s.exec(t, table+"alter table m add unique (dev, ts);"+enable)
				s.src.Exec(t, fill(0, 1000)+compress+fill(1200, 20))
				s.dst.Exec(t, fill(0, 20)+"update m set v = -1 where i < 5;"+c.target)
				if _, err := s.dst.Conn(t).Exec(context.Background(),
					"create table r (dev int, ts timestamptz, "+
						"foreign key (dev, ts) references m (dev, ts) on delete cascade)"); err != nil {
					t.Skipf("no foreign keys to hypertables here: %v", err)
				}
				s.dst.Exec(t, "insert into r select dev, ts from m where i < 4")
				s.stage(t, stage.Options{Until: "2025-01-01"})
				wantWay(t, one(t, s.copy(t)), c.way, "other tables reference rows of the target's chunk")
				s.same(t, "after the copy")
				var n int
				if s.dst.Query1(t, &n, "select count(*) from r"); n != 4 {
					t.Errorf("%d of 4 rows still reference the hypertable", n)
				}
				// Nothing to merge with: the same table takes compressed chunks.
				s.dst.Exec(t, "truncate r; delete from m")
				s.dst.Exec(t, "select decompress_chunk(c, true) from show_chunks('m') c")
				s.dst.Exec(t, "update __backfill.task set rows_only = null")
				s.force = true
				rs, errs := s.lane(t, nil)
				if errs[0] != nil {
					t.Fatal(errs[0])
				}
				wantWay(t, rs[0], wayRaw, "")
				s.same(t, "after the second copy")
			})
		}
	})
}

// TestCompressedUnreadable dumps as a role that may read the hypertable but not
// the compressed relations of its chunks: the rows travel, and the result says
// which privilege is missing.
func TestCompressedUnreadable(t *testing.T) {
	testdb.EachFull(t, func(t *testing.T, p testdb.Pair) {
		s := both(t, p)
		s.exec(t, table+enable)
		s.src.Exec(t, fill(0, 1000)+compress+fill(200, 20))
		conn := s.src.Role(t, "bf_reader") // after the compression: the grant does not reach its relation
		s.src.Exec(t, "grant select on m to bf_reader")
		s.stage(t, stage.Options{Until: "2025-01-01"})
		s.from = conn
		r := one(t, s.copy(t))
		if r.Way == wayRaw {
			// From some version on the grant goes to all relations of a chunk.
			var may bool
			if s.src.Query1(t, &may, "select bool_and(has_table_privilege('bf_reader', c.oid, 'select')) "+
				"from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attname = '_ts_meta_count' "+
				"where relkind = 'r'"); !may {
				t.Error("it was read without the right to")
			}
		} else {
			wantWay(t, r, wayFresh, "this helps: grant select on ")
		}
		s.same(t, "after the copy")
	})
}

// TestCompressedInvalidation copies a compressed chunk into a hypertable that a
// continuous aggregate is on and that another table references: a refresh sees
// the rows.
func TestCompressedInvalidation(t *testing.T) {
	testdb.EachFull(t, func(t *testing.T, p testdb.Pair) {
		for _, c := range []struct{ name, held, way, why string }{
			// a part of the same chunk
			{"rows", fill(3000, 10), wayRows, "other tables reference rows of the target's chunk"},
			{"none", "", wayRows, "a continuous aggregate would not learn of the rows"},
		} {
			t.Run(c.name, func(t *testing.T) {
				s := both(t, p)
				s.exec(t, table+"alter table m add unique (dev, ts);"+enable)
				s.src.Exec(t, fill(0, 1000)+compress+fill(1200, 20))
				if _, err := s.dst.Conn(t).Exec(context.Background(),
					"create table r (dev int, ts timestamptz, "+
						"foreign key (dev, ts) references m (dev, ts))"); err != nil {
					t.Skipf("no foreign keys to hypertables here: %v", err)
				}
				s.dst.Exec(t, c.held+strings.ReplaceAll(fill(0, 10), "2024-01-04", "2025-01-04"))
				s.dst.Exec(t, `create materialized view hourly
                    with (timescaledb.continuous, timescaledb.materialized_only = true) as
					select time_bucket('1 hour', ts) as h, dev, count(*) as n, sum(i) as i from m group by 1, 2
					with no data`)
				s.dst.Exec(t, "call refresh_continuous_aggregate('hourly', null, null)")
				s.stage(t, stage.Options{Until: "2025-01-01"})
				wantWay(t, one(t, s.copy(t)), c.way, c.why)
				s.dst.Exec(t, "delete from m where ts > '2025-01-01'")
				s.same(t, "after the copy")
				s.dst.Exec(t, "call refresh_continuous_aggregate('hourly', null, null)")
				a, b := s.src.Rows(t, "select time_bucket('1 hour', ts) as h, dev, count(*) as n, sum(i) as i from m "+
					"group by 1, 2 order by 1, 2"), s.dst.Rows(t, "select * from hourly order by h, dev")
				if !reflect.DeepEqual(a, b) {
					t.Errorf("the aggregate is not up to date:\n%v\n%v", a, b)
				}
			})
		}
	})
}
