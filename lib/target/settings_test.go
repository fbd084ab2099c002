package target_test

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"bf/lib/stage"
	"bf/lib/testdb"
)

// TestCompressedSettings copies chunks that were compressed with settings which
// the hypertables do not have, or no longer.
func TestCompressedSettings(t *testing.T) {
	testdb.EachFull(t, func(t *testing.T, p testdb.Pair) {
		const byTime = "alter table m set (timescaledb.compress, timescaledb.compress_orderby = 'ts');"
		for _, c := range []struct {
			name, source, target string
			everywhere           bool // on all versions
			same                 bool // settings: also one set per hypertable will do
			live                 bool // the chunk is worked with afterwards
		}{
			{name: "other segments and order", source: enable, everywhere: true, live: true,
				target: `alter table m set (timescaledb.compress, timescaledb.compress_segmentby = 't',
                    timescaledb.compress_orderby = 'i asc nulls first, ts');`},
			{name: "no segments on the source", source: byTime, target: enable},
			{name: "no segments on the target", source: enable, target: byTime, everywhere: true},
			{name: "defaults on the target", source: enable, target: "alter table m set (timescaledb.compress);"},
			{name: "defaults on the source", source: "alter table m set (timescaledb.compress);", target: enable},
			{name: "indexes on one side only", source: enable, same: true,
				target: enable + `drop index m_u_idx; drop index m_t_u_idx; drop index m_i_idx;`},
		} {
			if !thorough(t, p) && !c.everywhere {
				continue
			}
			t.Run(strings.ReplaceAll(c.name, " ", "-"), func(t *testing.T) {
				s := both(t, p)
				s.exec(t, table)
				s.src.Exec(t, c.source+fill(0, 1000)+compress+fill(300, 10))
				s.dst.Exec(t, c.target)
				before := settings(t, s.dst)
				s.stage(t, stage.Options{Until: "2025-01-01"})
				r := one(t, s.copy(t))
				if legacy(p) && !c.same {
					if r.Way != wayFresh {
						t.Errorf("way %q", r.Way)
					}
				} else {
					wantWay(t, r, wayRaw, "")
					chunk := "select coalesce(segmentby, '{}'), orderby, orderby_desc, orderby_nullsfirst " +
						"from _timescaledb_catalog.compression_settings where relid <> 'm'::regclass"
					if !legacy(p) && !reflect.DeepEqual(s.src.Rows(t, chunk), s.dst.Rows(t, chunk)) {
						t.Errorf("settings of the chunk are %v, on the source %v", s.dst.Rows(t, chunk),
							s.src.Rows(t, chunk))
					}
				}
				s.same(t, "after the copy")
				if after := settings(t, s.dst); !reflect.DeepEqual(before, after) {
					t.Errorf("settings of the hypertable were %v, are %v", before, after)
				}
				if c.live {
					s.live(t)
				}
			})
		}
	})
}

// TestCompressedOverTime copies chunks of one hypertable whose settings changed
// between them.
func TestCompressedOverTime(t *testing.T) {
	testdb.EachFull(t, func(t *testing.T, p testdb.Pair) {
		if legacy(p) {
			t.Skip("2.11 does not change settings while a chunk is compressed")
		}
		s := both(t, p)
		s.exec(t, table)
		for i, set := range []string{
			"timescaledb.compress_segmentby = 'dev', timescaledb.compress_orderby = 'ts desc, i'",
			"timescaledb.compress_segmentby = 't', timescaledb.compress_orderby = 'i, ts'",
			"timescaledb.compress_segmentby = '', timescaledb.compress_orderby = 'ts'"} {
			s.src.Exec(t, "alter table m set (timescaledb.compress, "+set+");"+
				strings.ReplaceAll(fill(0, 500), "2024-01-04", fmt.Sprintf("2024-%02d-04", i+1))+
				"select compress_chunk(format('%I.%I', chunk_schema, chunk_name)::regclass) "+
				"from timescaledb_information.chunks where not is_compressed")
		}
		s.dst.Exec(t, enable)
		before := settings(t, s.dst)
		s.stage(t, stage.Options{Until: "2025-01-01"})
		rs := s.copy(t)
		if len(rs) != 3 {
			t.Fatalf("%d results", len(rs))
		}
		for _, r := range rs {
			wantWay(t, r, wayRaw, "")
		}
		s.same(t, "after the copy")
		chunk := "select coalesce(segmentby, '{}'), orderby, orderby_desc, orderby_nullsfirst " +
			"from _timescaledb_catalog.compression_settings where relid <> 'm'::regclass order by 2, 1"
		if a, b := s.src.Rows(t, chunk), s.dst.Rows(t, chunk); !reflect.DeepEqual(a, b) {
			t.Errorf("settings of the chunks are %v, on the source %v", b, a)
		}
		if after := settings(t, s.dst); !reflect.DeepEqual(before, after) {
			t.Errorf("settings of the hypertable were %v, are %v", before, after)
		}
	})
}

// TestCompressedNames copies compressed chunks and looks at the names of what bf has
// made: they are those that the server gives when it compresses the chunks itself, in
// a new database and where the target has long had chunks, compressed or not, of long
// and of strange names.
func TestCompressedNames(t *testing.T) {
	testdb.EachFull(t, func(t *testing.T, p testdb.Pair) {
		for _, c := range []struct{ prefix, target string }{
			{"", ""},
			{"", "create table z(ts timestamptz not null); select create_hypertable('z', 'ts');" +
				fill(0, 10) + compress},
			{"äöü_" + strings.Repeat("long", 8), ""},
		} {
			s := both(t, p)
			with := table
			if c.prefix != "" {
				with = strings.Replace(table, "chunk_time_interval",
					"associated_table_prefix => '"+c.prefix+"', chunk_time_interval", 1)
			}
			s.exec(t, with+enable)
			s.src.Exec(t, fill(0, 500)+strings.ReplaceAll(fill(0, 500), "2024-01-04", "2024-02-04")+compress)
			s.dst.Exec(t, c.target)
			s.as = s.dst.Role(t, "bf_owner")
			s.dst.Exec(t, "do $$ begin execute 'grant create on database '||current_database()||' to bf_owner'; "+
				"end $$; alter table m owner to bf_owner; grant create on schema _timescaledb_internal to bf_owner")
			s.stage(t, stage.Options{Until: "2025-01-01"})
			for _, r := range s.copy(t) {
				wantWay(t, r, wayRaw, "")
			}
			// The numbers are counted on.
			const names = `select regexp_replace(relname, 'compress_hyper_(\d+)_\d+_chunk', ` +
				`'compress_hyper_\1_N_chunk') from pg_class
                where relkind in ('r', 'i') and (relname ~ '^compress_hyper' or relname ~ '_compressed') order by 1`
			bf := s.dst.Rows(t, names)
			if !legacy(p) {
				numbers := s.dst.Rows(t, `select count(*) from _timescaledb_catalog.chunk c
                    where to_jsonb(c)->>'table_name' like 'compress%'
                    and to_jsonb(c)->>'table_name' <> format('compress_hyper_%s_%s_chunk', hypertable_id, id)`)
				if numbers[0][0] != "0" {
					t.Errorf("names with other numbers than the chunks': %v", bf)
				}
			}
			s.dst.Exec(t, "select decompress_chunk(c) from show_chunks('m') c")
			s.dst.Exec(t, compress)
			own := s.dst.Rows(t, names)
			if legacy(p) { // its indexes keep the names they were made with
				tables := func(r []string) bool { return strings.Contains(r[0], "_dev_") }
				bf, own = slices.DeleteFunc(bf, tables), slices.DeleteFunc(own, tables)
			}
			if len(own) == 0 || !reflect.DeepEqual(bf, own) {
				t.Errorf("prefix %q: names %v, the server's %v", c.prefix, bf, own)
			}
		}
	})
}

// noOrphans complains of compressed relations that are no chunk's.
func noOrphans(t *testing.T, db *testdb.DB) {
	t.Helper()
	n := db.Rows(t, "select (select count(*) from pg_class where relkind = 'r' "+
		"and relname ~ '^compress_hyper|_chunk_compressed'), (select count(*) from timescaledb_information.chunks "+
		"where is_compressed)")
	if n[0][0] != n[0][1] {
		t.Errorf("%s compressed relations of %s compressed chunks", n[0][0], n[0][1])
	}
}

// TestCompressedPairs copies from old versions to newer ones, as it is, and the
// other way round, by rows.
func TestCompressedPairs(t *testing.T) {
	testdb.EachPair(t, func(t *testing.T, p testdb.Pair) {
		if p.Source == p.Target || !p.Source.Full {
			t.Skip("other tests are about that")
		}
		s := both(t, p)
		s.exec(t, table)
		s.src.Exec(t, enable+fill(0, 1000)+compress+fill(200, 20))
		if !p.Target.Full {
			s.stage(t, stage.Options{Until: "2025-01-01"})
			wantWay(t, one(t, s.copy(t)), wayRows, "the target is the Apache edition")
			s.same(t, "after the copy")
			return
		}
		s.dst.Exec(t, enable)
		before := settings(t, s.dst)
		s.stage(t, stage.Options{Until: "2025-01-01"})
		wantWay(t, one(t, s.copy(t)), wayRaw, "")
		s.same(t, "after the copy")
		if got := state(t, s.dst); got != "9" {
			t.Errorf("status %s", got)
		}
		if after := settings(t, s.dst); !reflect.DeepEqual(before, after) {
			t.Errorf("settings of the hypertable were %v, are %v", before, after)
		}
		if p.Target != testdb.Installs(t)[0] {
			return
		}
		s.live(t)

		s = both(t, testdb.Pair{Source: p.Target, Target: p.Source})
		s.exec(t, table+enable)
		s.src.Exec(t, fill(0, 1000)+compress+fill(200, 20))
		s.stage(t, stage.Options{Until: "2025-01-01"})
		wantWay(t, one(t, s.copy(t)), wayFresh, "is older than the source's")
		s.same(t, "after the copy to the older version")
	})
}

// TestCompressedCatalogs compares an attached chunk with one that the same
// server compressed: what the catalogs say of it, foreign keys and tablespace.
func TestCompressedCatalogs(t *testing.T) {
	testdb.EachFull(t, func(t *testing.T, p testdb.Pair) {
		s := both(t, p)
		s.exec(t, `create table d(id int primary key); insert into d select generate_series(0, 9);`+table+
			`alter table m add foreign key (dev) references d on delete cascade; grant select on m to public;`)
		for _, db := range []*testdb.DB{s.src, s.dst} {
			conn := db.Conn(t)
			for _, sql := range []string{"set allow_in_place_tablespaces = on",
				"create tablespace ts_" + db.Name + " location ''"} {
				if _, err := conn.Exec(context.Background(), sql); err != nil {
					t.Fatal(err)
				}
			}
			db.Exec(t, "alter table m set tablespace ts_"+db.Name)
		}
		defer func() {
			for _, db := range []*testdb.DB{s.src, s.dst} {
				db.Exec(t, "drop table m cascade")
				db.Exec(t, "drop tablespace ts_"+db.Name)
			}
		}()
		s.exec(t, enable)
		s.src.Exec(t, fill(0, 1000)+compress+fill(200, 20))
		s.stage(t, stage.Options{Until: "2025-01-01"})
		wantWay(t, one(t, s.copy(t)), wayRaw, "")
		s.same(t, "after the copy")

		comp := "(select c.oid from pg_class c join pg_attribute a on a.attrelid = c.oid " +
			"and a.attname = '_ts_meta_count' where c.relkind = 'r' and c.relname not like '\\_compressed%')"
		acl := "c.relacl"
		if legacy(p) {
			acl = "null" // there the relation has none of its own
		}
		chunk := "(select c from show_chunks('m') c)"
		for _, rel := range []string{comp, chunk} {
			for _, q := range []string{
				"select a.attname, a.atttypid::regtype, a.attstorage, a.attstattarget, a.attnotnull, " +
					"a.attcollation::regcollation from pg_attribute a where attrelid = " + rel +
					" and attnum > 0 order by attnum",
				"select regexp_replace(pg_get_indexdef(indexrelid), ' INDEX .* USING', ' INDEX USING') as d, " +
					"coalesce(left(t.spcname, 3), '') from pg_index i join pg_class c on c.oid = i.indexrelid left " +
					"join pg_tablespace t on t.oid = c.reltablespace where i.indrelid = " + rel + " order by 1",
				"select contype, pg_get_constraintdef(oid) from pg_constraint where conrelid = " + rel +
					" order by 1, 2",
				"select c.relam, c.reloptions, " + acl +
					", c.relowner, c.relhastriggers, c.relrowsecurity, left(t.spcname, 3), c.relpersistence, " +
					"c.relreplident from pg_class c left join pg_tablespace t on t.oid = c.reltablespace " +
					"where c.oid = " + rel,
			} {
				if a, b := s.src.Rows(t, q), s.dst.Rows(t, q); !reflect.DeepEqual(a, b) {
					t.Errorf("%s\nnative   %v\nattached %v", q, a, b)
				}
			}
		}
		for _, q := range []string{
			"select status, osm_chunk from _timescaledb_catalog.chunk order by id",
			"select uncompressed_heap_size, uncompressed_toast_size, uncompressed_index_size, " +
				"numrows_pre_compression, numrows_post_compression from _timescaledb_catalog.compression_chunk_size",
			"select inhparent::regclass::text ~ '_compressed_' from pg_inherits order by 1",
		} {
			if a, b := s.src.Rows(t, q), s.dst.Rows(t, q); !reflect.DeepEqual(a, b) {
				t.Errorf("%s\nnative   %v\nattached %v", q, a, b)
			}
		}
		s.exec(t, "delete from d where id = 2")
		s.same(t, "after a cascading delete")
		s.exec(t, "delete from m where dev is null or dev not in (select id from d)")
	})
}
