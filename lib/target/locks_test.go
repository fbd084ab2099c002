package target_test

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"bf/lib/pg"
	"bf/lib/stage"
	"bf/lib/stream"
	"bf/lib/testdb"
	"bf/lib/tsdb"
)

// TestHostileRelation loads streams whose description of the compressed
// relation is not what a dump writes: they are refused and nothing happens.
func TestHostileRelation(t *testing.T) {
	testdb.EachFull(t, func(t *testing.T, p testdb.Pair) {
		if !newest(t, p) {
			t.Skip("on the newest version only")
		}
		s := both(t, p)
		s.exec(t, table+enable)
		s.src.Exec(t, fill(0, 1000)+compress)
		s.stage(t, stage.Options{Until: "2025-01-01"})
		for name, edit := range map[string]func(h *stream.Header, img *tsdb.Image){
			"type": func(h *stream.Header, img *tsdb.Image) {
				img.Relation.Columns[0].Type, h.Parts[0].Columns[0].Type = "int); drop table m; --",
					"int); drop table m; --"
			},
			"collation": func(h *stream.Header, img *tsdb.Image) {
				img.Relation.Columns[0].Collation = `x"; drop table m; --`
			},
			"storage": func(h *stream.Header, img *tsdb.Image) {
				img.Relation.Columns[0].Storage = "p; drop table m"
			},
			"statistics": func(h *stream.Header, img *tsdb.Image) { img.Relation.Columns[0].Statistics = 1 << 20 },
			"index": func(h *stream.Header, img *tsdb.Image) {
				img.Relation.Indexes = [][]tsdb.IndexColumn{{{Column: "nope"}}}
			},
			"twice": func(h *stream.Header, img *tsdb.Image) {
				img.Relation.Columns[1].Name = img.Relation.Columns[0].Name
			},
			"other columns": func(h *stream.Header, img *tsdb.Image) { h.Parts[0].Columns = h.Parts[0].Columns[1:] },
			"order":         func(h *stream.Header, img *tsdb.Image) { img.Relation.Settings.Desc = nil },
			"no relation":   func(h *stream.Header, img *tsdb.Image) { img.Relation = nil },
			"encoding":      func(h *stream.Header, img *tsdb.Image) { img.Relation.Encoding = "LATIN1" },
			"segments": func(h *stream.Header, img *tsdb.Image) {
				img.Relation.Settings.SegmentBy = []string{`dev"; drop table m`}
			},
		} {
			_, errs := s.lane(t, func(h *stream.Header) {
				var img tsdb.Image
				if err := json.Unmarshal(h.Chunk, &img); err != nil {
					t.Error(err)
				}
				edit(h, &img)
				h.Chunk, _ = json.Marshal(img)
			})
			if len(errs) != 1 || errs[0] == nil {
				t.Errorf("%s: %v", name, errs)
				continue
			}
			t.Logf("%s: %v", name, errs[0])
			s.dst.Exec(t, "update __backfill.task set rows_only = null")
			if n := s.dst.Rows(t, "select (select count(*) from m), (select count(*) from pg_class "+
				"where relname like 'compress\\_hyper%')"); n[0][0] != "0" || n[0][1] != "0" {
				t.Errorf("%s: %v", name, n)
			}
		}
		wantWay(t, one(t, s.copy(t)), wayRaw, "")
		s.same(t, "after the copy")
	})
}

// lockCase is a load during whose COPY the application works on.
type lockCase struct {
	name, source, demands, target string
	// a continuous aggregate is on the target's; a plain owner loads, who may make
	// relations
	aggregated, owner, grant bool
	until, way, why          string
}

const demandCheck = "alter table m add check (v < 1e9);"
const addedColumn = "alter table m add x text default 'x';"
const demandForeign = "create table four (dev int primary key); insert into four select generate_series(0, 3); " +
	"alter table m add foreign key (dev) references four;--\n"

// It looks into the hypertable, as triggers may.
const demandTrigger = `create table seen (n bigint); grant all on seen to public;
	create function seen() returns trigger language plpgsql as
	'begin insert into seen select count(*) from m
	where ts = new.ts and dev is not distinct from new.dev and i = new.i; return null; end';
	create trigger seen after insert on m for each row execute function seen();`

var lockCases = []lockCase{
	{name: "raw over rows", source: fill(0, 1000) + compress + fill(200, 20), target: fill(3, 5), way: wayRaw},
	{name: "raw over rows, aggregated", source: fill(0, 1000) + compress + fill(200, 20), target: fill(3, 5),
		aggregated: true, way: wayRaw},
	{name: "raw over compressed", source: fill(0, 1000) + compress, target: fill(3, 500) + compress + fill(7, 5),
		way: wayRaw},
	{name: "raw into what is there", source: fill(0, 1000) + compress + fill(200, 20),
		target: fill(3, 500) + compress, owner: true, way: wayExisting},
	{name: "raw into what is there, aggregated", source: fill(0, 1000) + compress + fill(200, 20),
		target: fill(3, 5) + fill(1100, 500) + compress, aggregated: true, owner: true, way: wayExisting},
	{name: "raw into what is there, aggregated and unique", source: fill(0, 1000) + compress,
		demands: "create unique index on m (dev, ts);", target: fill(3, 5) + fill(1100, 500) + compress +
			fill(1700, 3), aggregated: true, owner: true, way: wayExisting},
	{name: "rows into what is there, aggregated and unique", source: fill(0, 1000) + compress,
		demands: "create unique index on m (dev, ts);",
		target:  fill(3, 5) + fill(1100, 500) + compress + fill(1700, 3), aggregated: true, owner: true,
		way: wayRowsExisting, why: "only the target demands of its rows"},
	{name: "raw into what is there, other segments, aggregated and unique",
		source: fill(0, 1000) + compress + fill(1000, 20), demands: "create unique index on m (i, ts);",
		target: fill(3, 5) + fill(600, 401) + "update m set dev = 9;" + compress, aggregated: true, owner: true,
		way: wayExisting},
	{name: "raw into what is there, aggregated and deferrably unique", source: fill(0, 1000) + compress,
		demands: "alter table m add unique (dev, ts) deferrable;", target: fill(3, 5) + fill(1100, 500) + compress +
			fill(1700, 3), aggregated: true, owner: true, way: wayExisting},
	{name: "raw into nothing, aggregated and unique", source: fill(0, 1000) + compress,
		demands: "create unique index on m (dev, ts);", aggregated: true, owner: true, way: wayExisting},
	{name: "raw with many rows beside, aggregated", source: fill(0, 1000) + compress + fill(1000, 8000),
		target: fill(9000, 500), aggregated: true, way: wayRaw},
	{name: "raw with many rows beside over compressed", source: fill(0, 1000) + compress + fill(1000, 8000),
		target: fill(9000, 500) + compress, way: wayFresh, why: "to insert 8000 rows beside the batches"},
	{name: "raw with many rows beside over many rows", source: fill(0, 1000) + compress + fill(1000, 8000),
		target: fill(0, 6000), way: wayFresh, why: "to insert 8000 rows beside the batches"},
	{name: "raw with rows beside over many rows", source: fill(0, 1000) + compress + fill(1000, 80),
		target: fill(0, 6000), way: wayRaw},
	{name: "raw over many rows", source: fill(0, 1000) + compress, target: fill(0, 6000), owner: true, way: wayRows,
		why: "the target's chunk has uncompressed rows; this helps: grant create"},
	{name: "triggers", source: fill(0, 1000) + compress, demands: demandTrigger, target: fill(3, 5), way: wayCompress,
		why: "row triggers of the target have to fire: seen"},
	{name: "triggers, aggregated", source: fill(0, 1000) + compress, demands: demandTrigger, target: fill(1100, 500),
		aggregated: true, way: wayCompress, why: "row triggers of the target have to fire: seen"},
	{name: "triggers over compressed", source: fill(0, 1000), demands: demandTrigger,
		target: fill(3, 500) + compress + fill(7, 5), way: wayCompress,
		why: "the target's chunk is compressed; row triggers of the target have to fire: seen"},
	{name: "triggers over compressed, aggregated and unique", source: fill(0, 1000),
		demands: demandTrigger + "create unique index on m (dev, ts);", target: fill(3, 500) + compress,
		aggregated: true,
		way:        wayCompress, why: "row triggers of the target have to fire: seen"},
	{name: "triggers and a plain owner", source: fill(0, 1000) + compress, demands: demandTrigger, target: fill(3, 5),
		owner: true, way: wayRows, why: "row triggers of the target have to fire; left uncompressed: " +
			"the role may not create relations in schema _timescaledb_internal; this helps: grant create"},
	{name: "triggers and a plain owner over compressed", source: fill(0, 1000), demands: demandTrigger,
		target: fill(3, 500) + compress, owner: true, way: wayRoot,
		why: "left uncompressed: the role may not create relations"},
	{name: "a part over compressed with triggers", source: fill(0, 1000), demands: demandTrigger,
		target: fill(0, 1000) +
			compress, until: "2024-01-04 10:00+00", way: wayRoot, why: "the target's chunk is compressed"},
	{name: "a foreign key that cannot be looked up", source: fill(0, 1000) + compress, demands: demandForeign,
		target: fill(3, 5), owner: true, grant: true, way: wayCompress, why: "cannot be checked"},
	{name: "a deferred foreign key", source: fill(0, 1000) + compress,
		demands: strings.ReplaceAll(demandForeign, ";--", " deferrable initially deferred;"), target: fill(3, 5),
		owner: true, grant: true, way: wayCompress, why: "cannot be checked"},
	{name: "a column added with a default", source: addedColumn + fill(0, 1000) + compress, demands: demandCheck,
		target: fill(3, 5) + addedColumn, way: wayCompress, why: "was added with a default to the target's chunk"},
	{name: "rows over compressed", source: fill(0, 1000), target: fill(3, 500) + compress + fill(7, 5),
		way: wayFresh, why: "the target's chunk is compressed"},
	{name: "rows over compressed, aggregated", source: fill(0, 1000), target: fill(3, 500) + compress + fill(7, 5),
		aggregated: true, way: wayFresh, why: "the target's chunk is compressed"},
	{name: "rows over compressed and unique", source: fill(0, 1000), demands: "create unique index on m (dev, ts);",
		target: fill(3, 500) + compress, way: wayFresh, why: "the target's chunk is compressed"},
	{name: "rows of a compressed chunk", source: fill(0, 1000) + compress, demands: demandCheck, target: fill(3, 500),
		way: wayFresh, why: "only the target demands"},
	{name: "rows of a compressed chunk into what is there, aggregated", source: fill(0, 1000) + compress,
		demands: demandCheck, target: fill(3, 500), aggregated: true, owner: true, way: wayRowsExisting,
		why: "only the target demands"},
	{name: "a part over compressed", source: fill(0, 1000), target: fill(0, 1000) + compress,
		until: "2024-01-04 10:00+00", way: wayRoot, why: "the target's chunk is compressed"},
	{name: "a part over compressed and unique", source: fill(0, 1000),
		demands: "create unique index on m (dev, ts);", target: fill(0, 1000) + compress,
		until: "2024-01-04 10:00+00", way: wayRoot, why: "the target's chunk is compressed"},
	{name: "a part over compressed without segments", source: fill(0, 1000),
		target: "alter table m set (timescaledb.compress, timescaledb.compress_segmentby = '', " +
			"timescaledb.compress_orderby = 'ts');" + fill(0, 1000) + compress, until: "2024-01-04 10:00+00",
		way: wayRoot, why: "the target's chunk is compressed"},
	{name: "a part over a batch of one row", source: fill(0, 600) + fill(660, 1),
		target: "alter table m set (timescaledb.compress, timescaledb.compress_segmentby = '', " +
			"timescaledb.compress_orderby = 'ts');" + fill(660, 1) + compress, until: "2024-01-04 10:00+00",
		way: wayRoot, why: "the target's chunk is compressed"},
	{name: "over compressed of another extent", source: fill(0, 1000),
		demands: "select set_chunk_time_interval('m', interval '3 days');", target: fill(0, 1000) + compress,
		way: wayRoot, why: "the target cuts chunks differently"},
	// compressed, without rows
	{name: "rows over a restored dump", source: fill(0, 1000), target: fill(0, 1) + "delete from m;" + compress,
		way: wayRows},
}

// TestCompressedLocks loads a chunk whose stream stands still in the middle: the
// application reads and writes meanwhile, to the chunk itself, to others, and to
// those that have to be made.
func TestCompressedLocks(t *testing.T) {
	for _, c := range lockCases {
		t.Run(strings.ReplaceAll(c.name, " ", "-"), func(t *testing.T) {
			testdb.EachFull(t, func(t *testing.T, p testdb.Pair) {
				if !thorough(t, p) {
					t.Skip("on the newest and the oldest version only")
				}
				c.run(t, p)
			})
		})
	}
}

func (c lockCase) run(t *testing.T, p testdb.Pair) {
	s := both(t, p)
	c.prepare(t, p, s)
	s.stage(t, stage.Options{Until: cmp.Or(c.until, "2025-01-01")})
	stood, written := false, 0
	s.pause = func() {
		var statements []string
		stood = true
		statements, written = c.application(p)
		app := s.dst.Conn(t)
		for _, sql := range append([]string{"set lock_timeout = '500ms'", "select count(*) from m"}, statements...) {
			if _, err := app.Exec(context.Background(), sql); err != nil {
				t.Errorf("while the copy goes on: %s: %v", sql, err)
			}
		}
	}
	if c.grant && tsdb.AtLeast(p.Target.Version, "2.14") && !tsdb.AtLeast(p.Target.Version, "2.16") {
		c.way = wayRows // these have to repeat the foreign key on the compressed relation
	}
	wantWay(t, one(t, s.copy(t)), c.way, c.why)
	if !stood {
		t.Fatal("the stream did not stand still")
	}
	s.dst.Exec(t, "delete from m where ts < '2024-01-01' or i < 0")
	s.same(t, "after the copy")
	c.judge(t, s, written)
	noOrphans(t, s.dst)
}

// prepare makes both sides.
func (c lockCase) prepare(t *testing.T, p testdb.Pair, s *sides) {
	s.exec(t, table)
	if strings.HasPrefix(c.way, "raw") {
		s.src.Exec(t, c.demands)
	}
	s.src.Exec(t, enable+c.source)
	s.dst.Exec(t, c.demands+enable+c.target)
	if strings.Contains(c.demands, demandTrigger) {
		s.dst.Exec(t, "truncate seen")
	}
	if c.way == wayRaw && !legacy(p) {
		s.dst.Exec(t, `alter table m
                        set (timescaledb.compress_segmentby = 't', timescaledb.compress_orderby = 'ts')`)
	}
	if c.owner && c.way == wayRows {
		s.dst.Exec(t, policy)
	}
	if c.aggregated {
		s.dst.Exec(t, "create materialized view hourly "+
			"with (timescaledb.continuous, timescaledb.materialized_only = true) as "+
			"select time_bucket('1 hour', ts) as h, dev, count(*) as n, sum(i) as i from m group by 1, 2 "+
			"with no data")
		s.dst.Exec(t, "call refresh_continuous_aggregate('hourly', null, null)")
	}
	if c.owner {
		s.as = s.dst.Role(t, "bf_owner")
		if c.aggregated {
			s.dst.Exec(t, "alter materialized view hourly owner to bf_owner")
		}
		s.dst.Exec(t, "alter table m owner to bf_owner; "+
			"do $$ begin execute 'grant create on database '||current_database()||' to bf_owner'; end $$")
		if c.grant {
			s.dst.Exec(t, "grant create on schema _timescaledb_internal to bf_owner")
		}
	}
}

// application is what it does during the COPY, and how many rows of the range it
// writes.
func (c lockCase) application(p testdb.Pair) (statements []string, written int) {
	if strings.Contains(c.demands, "unique") && c.way != wayFresh && strings.Contains(c.target, compress) &&
		c.until == "" && !tsdb.AtLeast(p.Target.Version, "2.17") {
		// ≤ 2.16: an insert decompresses every batch that may have the key.
		return []string{"insert into m(ts, dev, i) values ('2024-01-04 00:30:07+00', 9, -7)"}, 1
	}
	statements = []string{"insert into m(ts, dev, i) values ('" + cmp.Or(c.until, "2024-01-04 00:30+00") +
		"'::timestamptz + interval '7 seconds', 1, -7)",
		"insert into m(ts, i) values ('2023-01-04', -8)", "analyze m",
		"alter table m set (autovacuum_vacuum_cost_limit = 100)"}
	// Else it would change the same batches as the load.
	if c.way != wayRoot && !(c.way == wayCompress && strings.Contains(c.target, compress)) {
		statements = append(statements, "update m set i = -9 where i = -7",
			"delete from m where i = -9",
			// as lanes do that alter its settings
			"do $$ begin lock table only m in access exclusive mode; end $$")
	}
	return statements, 2
}

// judge looks at what triggers and the aggregate have heard of.
func (c lockCase) judge(t *testing.T, s *sides, written int) {
	if strings.Contains(c.demands, demandTrigger) {
		// For the application's rows, and once for each that was copied.
		q := "select count(*), count(*) filter (where n <> 1) from seen"
		if want := s.src.Rows(t, "select count(*) + "+fmt.Sprint(written)+", 0 from m where ts < '"+
			cmp.Or(c.until, "2025-01-01")+"'"); !reflect.DeepEqual(s.dst.Rows(t, q), want) {
			t.Errorf("triggers fired, and not just for the row: %v, want %v", s.dst.Rows(t, q), want)
		}
	}
	if c.aggregated {
		s.dst.Exec(t, "call refresh_continuous_aggregate('hourly', null, null)")
		a, b := s.src.Rows(t, "select time_bucket('1 hour', ts) as h, dev, count(*) as n, sum(i) as i "+
			"from m group by 1, 2 order by 1, 2"), s.dst.Rows(t, "select * from hourly order by h, dev")
		if !reflect.DeepEqual(a, b) {
			t.Errorf("the aggregate is not up to date:\n%v\n%v", a, b)
		}
	}
}

// TestCompressedDeleteTriggers copies where triggers of the target fire on DELETE:
// for rows that are replaced, at most once each, and for no others.
func TestCompressedDeleteTriggers(t *testing.T) {
	const trigger = `create table gone (i bigint); grant all on gone to public;
		create function gone() returns trigger language plpgsql as
		'begin insert into gone values (old.i); return old; end';
		create trigger gone before delete on m for each row execute function gone();`
	for _, c := range []struct {
		name, source, target, until string
		owner                       bool
		replaced                    string // of the rows that the target holds
		way, why                    string
	}{
		{name: "a plain owner", source: fill(0, 1000) + compress, owner: true, replaced: "false", way: wayRows,
			why: "triggers on DELETE would fire"},
		{name: "a plain owner over compressed", source: fill(0, 1000), target: fill(0, 500) + compress, owner: true,
			replaced: "i < 500", way: wayRoot, why: "triggers on DELETE would fire"},
		{name: "many rows beside", source: fill(0, 1000) + compress + fill(1000, 8000), target: fill(9000, 500),
			replaced: "i >= 9000", way: wayFresh, why: "to insert 8000 rows beside the batches"},
		{name: "a part over compressed", source: fill(0, 1000), target: fill(0, 1000) + compress,
			until: "2024-01-04 10:00+00", replaced: "i < 600", way: wayRoot, why: "the target's chunk is compressed"},
	} {
		t.Run(strings.ReplaceAll(c.name, " ", "-"), func(t *testing.T) {
			testdb.EachFull(t, func(t *testing.T, p testdb.Pair) {
				if !thorough(t, p) {
					t.Skip("on the newest and the oldest version only")
				}
				s := both(t, p)
				s.exec(t, table)
				s.src.Exec(t, enable+c.source)
				s.dst.Exec(t, enable+c.target+trigger+
					"create materialized view hourly "+
					"with (timescaledb.continuous, timescaledb.materialized_only = true) as "+
					"select time_bucket('1 hour', ts) as h, dev, count(*) as n, sum(i) as i from m group by 1, 2 "+
					"with no data")
				s.dst.Exec(t, "call refresh_continuous_aggregate('hourly', null, null)")
				if c.owner {
					s.as = s.dst.Role(t, "bf_owner")
					s.dst.Exec(t, "alter materialized view hourly owner to bf_owner; "+
						"alter table m owner to bf_owner; "+
						"do $$ begin execute 'grant create on database '||current_database()||' to bf_owner'; end $$")
				}
				if c.way == wayRows {
					s.dst.Exec(t, policy)
				}
				s.stage(t, stage.Options{Until: cmp.Or(c.until, "2025-01-01"), Choice: tsdb.Choice{Filter: `\.m$`}})
				wantWay(t, one(t, s.copy(t)), c.way, c.why)
				s.same(t, "after the copy")
				if got := s.dst.Rows(t, "select count(*) from (select i, count(*) from gone group by 1) g "+
					"where count > 1 or not ("+c.replaced+")"); got[0][0] != "0" {
					t.Errorf("triggers fired for %s rows that were not replaced, or again", got[0][0])
				}
				s.dst.Exec(t, "call refresh_continuous_aggregate('hourly', null, null)")
				a, b := s.src.Rows(t, "select time_bucket('1 hour', ts) as h, dev, count(*) as n, sum(i) as i from m "+
					"group by 1, 2 order by 1, 2"), s.dst.Rows(t, "select * from hourly order by h, dev")
				if !reflect.DeepEqual(a, b) {
					t.Errorf("the aggregate is not up to date:\n%v\n%v", a, b)
				}
			})
		})
	}
}

// TestCompressedDeadlock has the application wait for a row that is copied, or
// replaced, while the copy needs the chunk for itself: it is given up at once, and
// goes well when it is run again.
func TestCompressedDeadlock(t *testing.T) {
	for name, statement := range map[string]string{
		"same key": "insert into m(ts, dev) select '2024-01-04'::timestamptz + i * interval '1 minute', 0 " +
			"from generate_series(0, 2999, 4) i",
		"a replaced row": "delete from m where i = 3504",
	} {
		t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
			testdb.EachFull(t, func(t *testing.T, p testdb.Pair) {
				if !thorough(t, p) {
					t.Skip("on the newest and the oldest version only")
				}
				s := both(t, p)
				s.exec(t, table+"create unique index on m (dev, ts);"+enable)
				s.src.Exec(t, fill(0, 3000)+compress)
				s.dst.Exec(t, fill(3500, 5)+`create function seen() returns trigger language plpgsql as
                    'begin return null; end';
                    create trigger seen after insert on m for each row execute function seen();`)
				s.stage(t, stage.Options{Until: "2025-01-01"})
				app := s.dst.Conn(t)
				done := make(chan error, 1)
				s.pause = func() {
					go func() {
						_, err := app.Exec(context.Background(), statement)
						done <- err
					}()
					time.Sleep(1500 * time.Millisecond) // the server has looked for deadlocks by then
				}
				start := time.Now()
				if _, errs := s.lane(t, nil); errs[0] == nil || !strings.Contains(errs[0].Error(), "deadlock") {
					t.Errorf("%v", errs[0])
				}
				if err := <-done; err != nil {
					t.Errorf("the application: %v", err)
				}
				if d := time.Since(start); d > 30*time.Second {
					t.Errorf("that took %s", d)
				}
				s.pause = nil
				wantWay(t, one(t, s.copy(t)), wayCompress, "row triggers")
				s.same(t, "after the copy")
			})
		})
	}
}

// TestDeleteTriggersKeepRows loads where a trigger of the target keeps rows from
// being deleted: that is an error, and they are not doubled.
func TestDeleteTriggersKeepRows(t *testing.T) {
	testdb.EachFull(t, func(t *testing.T, p testdb.Pair) {
		if !thorough(t, p) {
			t.Skip("on the newest and the oldest version only")
		}
		for _, state := range []string{"", compress} {
			s := both(t, p)
			s.exec(t, table+enable+fill(0, 1000))
			s.dst.Exec(t, state+`create function keep() returns trigger language plpgsql as 'begin return null; end';
                create trigger keep before delete on m for each row execute function keep();`)
			s.stage(t, stage.Options{Until: "2024-01-04 10:00+00"})
			if _, errs := s.lane(t, nil); errs[0] == nil ||
				!strings.Contains(errs[0].Error(), "still there after DELETE") ||
				!strings.Contains(pg.Hint(errs[0]), "(keep)") {
				t.Errorf("%v", errs[0])
			}
			s.same(t, "after the refusal")
		}
	})
}
