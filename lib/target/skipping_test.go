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

// TestChunkSkipping loads where the server leaves chunks out of queries by the
// ranges of columns, over chunks in every state that their ranges can be in, by
// every way and as every kind of role: all rows are found afterwards.
func TestChunkSkipping(t *testing.T) {
	const (
		other      = "i % 4, i / 7.0, -i," // other values than the source's
		decompress = "select decompress_chunk(c) from show_chunks('m') c;"
		off, on    = "set timescaledb.enable_chunk_skipping = off;", "set timescaledb.enable_chunk_skipping = on;"
		trigger    = `create function seen() returns trigger language plpgsql as 'begin return null; end';
			create trigger seen after insert on m for each row execute function seen();`
	)
	rows := strings.ReplaceAll(strings.ReplaceAll(fill(10, 300)+fill(900, 50), "i % 4, i / 7.0, i,", other),
		"'2024-01-01'::date", "'2022-01-01'::date")
	states := []struct {
		name    string
		without bool // the chunk is made where chunk skipping is off
		sql     string
	}{
		{"absent", false, ""},
		{"empty", false, rows + "delete from m;"},
		{"rows", false, rows},
		{"compressed", false, rows + compress},
		{"partial", false, rows + compress + strings.ReplaceAll(fill(400, 5), "i % 4, i / 7.0, i,", other)},
		{"frozen", false, rows + compress + "select _timescaledb_functions.freeze_chunk(c) from show_chunks('m') c;"},
		{"compressed without batches", false, rows + compress + "BATCHES"},
		{"decompressed", false, rows + compress + decompress},
		{"decompressed and frozen", false, rows + compress + decompress +
			"select _timescaledb_functions.freeze_chunk(c) from show_chunks('m') c;"},
		{"decompressed and emptied", false, rows + compress + decompress + "delete from m;"},
		{"rows without ranges", true, rows},
		{"empty without ranges", true, rows + "delete from m;"},
		{"compressed without ranges", true, rows + compress},
	}
	sources := []string{fill(0, 1000) + compress, fill(0, 1000) + compress + fill(1000, 20), fill(0, 1000)}
	demands := []struct{ name, sql, until string }{
		{"nothing", "", ""},
		{"a check", "alter table m add check (v < 1e9);", ""},
		{"a key", "create unique index on m (i, ts);", ""},
		{"a deferrable key", "alter table m add unique (i, ts) deferrable;", ""},
		{"a trigger", trigger, ""},
		{"an aggregate", "AGGREGATE", ""},
		{"other chunks", "select set_chunk_time_interval('m', interval '3 days');", ""},
		{"a part", "", "2024-01-04 10:00+00"},
	}
	roles := []string{"superuser", "owner who may create", "owner"}
	one := func(t *testing.T, p testdb.Pair, state, role, demand int, source string, columns []string) {
		s := both(t, p)
		skip := ""
		for _, c := range columns {
			skip += "select enable_chunk_skipping('m', '" + c + "');"
		}
		s.exec(t, on+table)
		d := demands[demand]
		if d.sql != "AGGREGATE" {
			s.dst.Exec(t, d.sql) // up to 2.17 not once compression is enabled
		}
		s.exec(t, enable+skip)
		s.src.Exec(t, source)
		if d.sql == "AGGREGATE" {
			s.dst.Exec(t, "create materialized view hourly "+
				"with (timescaledb.continuous, timescaledb.materialized_only = true) as "+
				"select time_bucket('1 hour', ts) as h, dev, count(*) as n, sum(i) as i from m group by 1, 2 "+
				"with no data")
		}
		if states[state].without {
			s.dst.Reconnect()
			s.dst.Exec(t, "select count(*) from show_chunks('m');"+off)
		}
		sql, batches, _ := strings.Cut(states[state].sql, "BATCHES")
		if s.dst.Exec(t, sql); strings.Contains(states[state].sql, "BATCHES") {
			var rel string
			s.dst.Query1(t, &rel, "select attrelid::regclass::text from pg_attribute a "+
				"join pg_class c on c.oid = a.attrelid where attname = '_ts_meta_count' and relkind = 'r' "+
				"and relname not like '\\_compressed%'")
			s.dst.Exec(t, "delete from "+rel+";"+batches)
		}
		if role > 0 {
			s.as = s.dst.Role(t, "bf_owner")
			s.dst.Exec(t, "do $$ begin if to_regclass('hourly') is not null then "+
				"alter materialized view hourly owner to bf_owner; end if; "+
				"execute 'grant create on database '||current_database()||' to bf_owner'; "+
				"end $$; alter table m owner to bf_owner")
			if role == 1 {
				s.dst.Exec(t, "grant create on schema _timescaledb_internal to bf_owner")
			}
		}
		until := demands[demand].until
		if until == "" {
			until = "2025-01-01"
		}
		s.stage(t, stage.Options{Until: until, Choice: tsdb.Choice{Filter: `\.m$`}})
		for tries := 0; ; tries++ {
			rs, errs := s.lane(t, nil)
			if len(errs) == 0 {
				break
			}
			if err := errs[0]; err == nil {
				t.Logf("%s %s", rs[0].Way, rs[0].WhyNotRaw)
			} else if _, do, found := strings.Cut(pg.Hint(err),
				"run this on the target, then the same again: "); found &&
				strings.Contains(err.Error(), "chunk skipping") && role > 0 && tries == 0 {
				t.Log(err)
				s.dst.Exec(t, do)
			} else if strings.Contains(err.Error(), "cannot be taken as it is") && tries < 2 {
				t.Log(err)
			} else {
				t.Fatalf("%v (%s)", err, pg.Hint(err))
			}
		}
		if demands[demand].until == "" {
			s.same(t, "after the copy")
		}
		s.ask(t, "m", "after the copy")
		if t.Failed() {
			t.Log(s.dst.Rows(t, "select c.status, s.chunk_id, s.column_name, s.range_start, s.range_end, s.valid "+
				"from _timescaledb_catalog.chunk_column_stats s left "+
				"join _timescaledb_catalog.chunk c on c.id = s.chunk_id order by 2, 3"))
		}
	}
	testdb.EachFull(t, func(t *testing.T, p testdb.Pair) {
		if !tsdb.AtLeast(p.Source.Version, "2.17") {
			t.Skip("this version has no chunk skipping")
		}
		for state := range states {
			for role := range roles {
				if newest(t, p) && rand.N(2) > 0 || !newest(t, p) && rand.N(6) > 0 {
					continue
				}
				demand, source := rand.N(len(demands)), rand.N(len(sources))
				if strings.Contains(states[state].sql, "freeze_chunk") &&
					strings.Contains(demands[demand].sql, "set_chunk_time_interval") {
					continue // frozen chunks of another extent are refused
				}
				columns := []string{"dev", "e", "i"}
				rand.Shuffle(len(columns), func(i, j int) { columns[i], columns[j] = columns[j], columns[i] })
				columns = columns[:1+rand.N(3)]
				name := fmt.Sprintf("%s over %s as %s with %s, skipped by %v",
					[]string{"compressed", "partial", "uncompressed"}[source], states[state].name, roles[role],
					demands[demand].name, columns)
				t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
					one(t, p, state, role, demand, sources[source], columns)
				})
			}
		}
	})
}
