package target_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"bf/lib/pg"
	"bf/lib/stage"
	"bf/lib/testdb"
	"bf/lib/tsdb"
)

const (
	sourceValues  = "i % 4, i / 7.0, i,"
	otherValues   = "i % 4, i / 7.0, -i," // what the target holds beforehand
	decompressAll = "select decompress_chunk(c) from show_chunks('m') c;"
	skippingOff   = "set timescaledb.enable_chunk_skipping = off;"
	skippingOn    = "set timescaledb.enable_chunk_skipping = on;"
	seenTrigger   = `create function seen() returns trigger language plpgsql as 'begin return null; end';
			create trigger seen after insert on m for each row execute function seen();`
)

// elsewhere fills the target with rows of another time and of other values.
var elsewhere = strings.ReplaceAll(strings.ReplaceAll(fill(10, 300)+fill(900, 50), sourceValues, otherValues),
	"'2024-01-01'::date", "'2022-01-01'::date")

// skippingState is what the target's chunk is before the load.
type skippingState struct {
	name    string
	without bool // the chunk is made where chunk skipping is off
	sql     string
}

var skippingStates = []skippingState{
	{"absent", false, ""},
	{"empty", false, elsewhere + "delete from m;"},
	{"rows", false, elsewhere},
	{"compressed", false, elsewhere + compress},
	{"partial", false, elsewhere + compress + strings.ReplaceAll(fill(400, 5), sourceValues, otherValues)},
	{"frozen", false, elsewhere + compress + "select _timescaledb_functions.freeze_chunk(c) from show_chunks('m') c;"},
	{"compressed without batches", false, elsewhere + compress + "BATCHES"},
	{"decompressed", false, elsewhere + compress + decompressAll},
	{"decompressed and frozen", false, elsewhere + compress + decompressAll +
		"select _timescaledb_functions.freeze_chunk(c) from show_chunks('m') c;"},
	{"decompressed and emptied", false, elsewhere + compress + decompressAll + "delete from m;"},
	{"rows without ranges", true, elsewhere},
	{"empty without ranges", true, elsewhere + "delete from m;"},
	{"compressed without ranges", true, elsewhere + compress},
}

var skippingSources = []string{fill(0, 1000) + compress, fill(0, 1000) + compress + fill(1000, 20), fill(0, 1000)}

// demand is what the target asks of a load besides.
type demand struct{ name, sql, until string }

var demands = []demand{
	{"nothing", "", ""},
	{"a check", "alter table m add check (v < 1e9);", ""},
	{"a key", "create unique index on m (i, ts);", ""},
	{"a deferrable key", "alter table m add unique (i, ts) deferrable;", ""},
	{"a trigger", seenTrigger, ""},
	{"an aggregate", aggregateDemand, ""},
	{"other chunks", "select set_chunk_time_interval('m', interval '3 days');", ""},
	{"a part", "", "2024-01-04 10:00+00"},
}

// aggregateDemand stands for an aggregate on m, made once compression is enabled.
const aggregateDemand = "AGGREGATE"

var skippingRoles = []string{"superuser", "owner who may create", "owner"}

// skippingCase is one load of TestChunkSkipping.
type skippingCase struct {
	state        skippingState
	role, source int
	demand       demand
	columns      []string // whose ranges the server keeps
}

func (c skippingCase) String() string {
	return fmt.Sprintf("%s over %s as %s with %s, skipped by %v",
		[]string{"compressed", "partial", "uncompressed"}[c.source], c.state.name, skippingRoles[c.role],
		c.demand.name, c.columns)
}

// tables makes m on both sides, and fills the source.
func (c skippingCase) tables(t *testing.T, s *sides) {
	t.Helper()
	skip := ""
	for _, column := range c.columns {
		skip += "select enable_chunk_skipping('m', '" + column + "');"
	}
	s.exec(t, skippingOn+table)
	if c.demand.sql != aggregateDemand {
		s.dst.Exec(t, c.demand.sql) // up to 2.17 not once compression is enabled
	}
	s.exec(t, enable+skip)
	s.src.Exec(t, skippingSources[c.source])
	if c.demand.sql == aggregateDemand {
		s.dst.Exec(t, "create materialized view hourly "+
			"with (timescaledb.continuous, timescaledb.materialized_only = true) as "+
			"select time_bucket('1 hour', ts) as h, dev, count(*) as n, sum(i) as i from m group by 1, 2 "+
			"with no data")
	}
}

// targetChunk brings the target's chunk into its state.
func (c skippingCase) targetChunk(t *testing.T, s *sides) {
	t.Helper()
	if c.state.without {
		s.dst.Reconnect()
		s.dst.Exec(t, "select count(*) from show_chunks('m');"+skippingOff)
	}
	sql, after, deleted := strings.Cut(c.state.sql, "BATCHES")
	s.dst.Exec(t, sql)
	if deleted {
		var rel string
		s.dst.Query1(t, &rel, "select attrelid::regclass::text from pg_attribute a "+
			"join pg_class c on c.oid = a.attrelid where attname = '_ts_meta_count' and relkind = 'r' "+
			"and relname not like '\\_compressed%'")
		s.dst.Exec(t, "delete from "+rel+";"+after)
	}
}

// owner gives m to the role that loads, where that is no superuser.
func (c skippingCase) owner(t *testing.T, s *sides) {
	t.Helper()
	if c.role == 0 {
		return
	}
	s.as = s.dst.Role(t, "bf_owner")
	s.dst.Exec(t, "do $$ begin if to_regclass('hourly') is not null then "+
		"alter materialized view hourly owner to bf_owner; end if; "+
		"execute 'grant create on database '||current_database()||' to bf_owner'; "+
		"end $$; alter table m owner to bf_owner")
	if c.role == 1 {
		s.dst.Exec(t, "grant create on schema _timescaledb_internal to bf_owner")
	}
}

// load runs the lane, and does what the hints of its refusals say.
func (c skippingCase) load(t *testing.T, s *sides) {
	t.Helper()
	for tries := 0; ; tries++ {
		rs, errs := s.lane(t, nil)
		if len(errs) == 0 {
			return
		}
		if err := errs[0]; err == nil {
			t.Logf("%s %s", rs[0].Way, rs[0].WhyNotRaw)
		} else if _, do, found := strings.Cut(pg.Hint(err),
			"run this on the target, then the same again: "); found &&
			strings.Contains(err.Error(), "chunk skipping") && c.role > 0 && tries == 0 {
			t.Log(err)
			s.dst.Exec(t, do)
		} else if strings.Contains(err.Error(), "cannot be taken as it is") && tries < 2 {
			t.Log(err)
		} else {
			t.Fatalf("%v (%s)", err, pg.Hint(err))
		}
	}
}

func (c skippingCase) run(t *testing.T, p testdb.Pair) {
	s := both(t, p)
	c.tables(t, s)
	c.targetChunk(t, s)
	c.owner(t, s)
	until := c.demand.until
	if until == "" {
		until = "2025-01-01"
	}
	s.stage(t, stage.Options{Until: until, Choice: tsdb.Choice{Filter: `\.m$`}})
	c.load(t, s)
	if c.demand.until == "" {
		s.same(t, "after the copy")
	}
	s.ask(t, "m", "after the copy")
	if t.Failed() {
		t.Log(s.dst.Rows(t, "select c.status, s.chunk_id, s.column_name, s.range_start, s.range_end, s.valid "+
			"from _timescaledb_catalog.chunk_column_stats s left "+
			"join _timescaledb_catalog.chunk c on c.id = s.chunk_id order by 2, 3"))
	}
}

// TestChunkSkipping loads where the server leaves chunks out of queries by the
// ranges of columns, over chunks in every state that their ranges can be in, by
// every way and as every kind of role: all rows are found afterwards.
func TestChunkSkipping(t *testing.T) {
	testdb.EachFull(t, func(t *testing.T, p testdb.Pair) {
		if !tsdb.AtLeast(p.Source.Version, "2.17") {
			t.Skip("this version has no chunk skipping")
		}
		for _, state := range skippingStates {
			for role := range skippingRoles {
				if newest(t, p) && rand.N(2) > 0 || !newest(t, p) && rand.N(6) > 0 {
					continue
				}
				c := skippingCase{state: state, role: role, demand: demands[rand.N(len(demands))],
					source: rand.N(len(skippingSources))}
				if strings.Contains(state.sql, "freeze_chunk") &&
					strings.Contains(c.demand.sql, "set_chunk_time_interval") {
					continue // frozen chunks of another extent are refused
				}
				columns := []string{"dev", "e", "i"}
				rand.Shuffle(len(columns), func(i, j int) { columns[i], columns[j] = columns[j], columns[i] })
				c.columns = columns[:1+rand.N(3)]
				t.Run(strings.ReplaceAll(c.String(), " ", "-"), func(t *testing.T) { c.run(t, p) })
			}
		}
	})
}
