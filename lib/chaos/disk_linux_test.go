package chaos

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"bf/lib/testdb"
)

// disk is a small file system on which a server keeps a database.
type disk struct {
	dir string
	db  *testdb.DB
}

// newDisk makes another database beside d, on a disk of its own.
func newDisk(t *testing.T, d *testdb.DB) *disk {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root to mount a small file system")
	}
	var data string
	d.Query1(t, &data, "show data_directory")
	k := &disk{dir: filepath.Join(filepath.Dir(data), "disk")}
	if err := os.Mkdir(k.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("bf-test", k.dir, "tmpfs", 0, "size=500m"); err != nil {
		t.Skip("needs to mount a small file system: ", err)
	}
	t.Cleanup(func() { // the server has files open
		if err := syscall.Unmount(k.dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	server, err := os.Stat(data)
	if err != nil {
		t.Fatal(err)
	}
	owner := server.Sys().(*syscall.Stat_t)
	if err := os.Chown(k.dir, int(owner.Uid), int(owner.Gid)); err != nil {
		t.Fatal(err)
	}
	d.Exec(t, "create tablespace disk location '"+k.dir+"'")
	name := d.Name + "_disk"
	d.Exec(t, "create database "+name+" tablespace disk")
	k.db = &testdb.DB{ConnString: strings.Replace(d.ConnString, d.Name, name, 1), Install: d.Install, Server: d.Server,
		Name: name}
	k.db.Exec(t, "create extension timescaledb version '"+d.Install.Version+"'")
	return k
}

// leave makes the disk have so much space left.
func (k *disk) leave(t *testing.T, megabytes int) {
	t.Helper()
	k.db.Exec(t, "checkpoint") // removes what was deleted
	var fs syscall.Statfs_t
	if err := syscall.Statfs(k.dir, &fs); err != nil {
		t.Fatal(err)
	}
	used := (fs.Blocks - fs.Bfree) * uint64(fs.Bsize)
	if err := syscall.Mount("bf-test", k.dir, "tmpfs", syscall.MS_REMOUNT,
		fmt.Sprintf("size=%d", used+uint64(megabytes)<<20)); err != nil {
		t.Fatal(err)
	}
}

// TestFullDisk: the target's disk is full before all chunks are there. What was
// loaded is whole, what was not is untouched, and when there is space again the
// rest is copied: rows into a chunk that is there, into one that is not (loaded,
// indexed, attached where the server can), compressed as they are.
func TestFullDisk(t *testing.T) {
	testdb.Path(t)
	testdb.EachEdge(t, func(t *testing.T, p testdb.Pair) {
		source := testdb.New(t, p.Source, "source")
		disk := newDisk(t, testdb.NewServer(t, p.Target, "target", config).DB(t))
		target := disk.db
		// Nothing of the copy may go elsewhere than TimescaleDB's own chunks.
		target.Exec(t, "set allow_in_place_tablespaces = on")
		target.Exec(t, "create tablespace elsewhere location ''")
		target.Exec(t, "alter database "+target.Name+" set default_tablespace = elsewhere")
		tables := []string{"ready", "fresh"}
		if p.Target.Full {
			tables = append(tables, "packed")
		}
		env := []string{"BF_SOURCE=" + source.ConnString, "BF_TARGET=" + target.ConnString}
		for _, h := range tables {
			for _, d := range []*testdb.DB{source, target} {
				d.Exec(t, strings.ReplaceAll(`create table {h} (time timestamptz not null, dev int not null, v text);
					create index on {h} (dev, v); create index on {h} (v);
					select create_hypertable('{h}', 'time', chunk_time_interval => interval '1 day')`, "{h}", h))
				if h == "packed" {
					d.Exec(t, "alter table packed "+
						"set (timescaledb.compress, timescaledb.compress_segmentby = 'dev', "+
						"timescaledb.compress_orderby = 'time')")
				}
			}
			source.Exec(t, `insert into `+h+`
                select d + n * interval '5 seconds', n % 10, (select string_agg(md5(n::text || i || d), '')
                from generate_series(1, `+map[bool]string{true: "20", false: "2"}[h == "packed"]+`) i)
				from generate_series('2024-01-01'::timestamptz, '2024-01-05', '1 day') d, generate_series(1, 9999) n`)
			switch h {
			case "ready":
				target.Exec(t, "insert into ready select d + n * interval '1 minute', 99, 'stale' "+
					"from generate_series('2024-01-01'::timestamptz, '2024-01-05', '1 day') d, "+
					"generate_series(1, 100) n")
			case "packed":
				source.Rows(t, "select compress_chunk(c) from show_chunks('packed') c")
			}
			digest := func(d *testdb.DB) map[string]string {
				m := map[string]string{}
				for _, r := range d.Rows(t, "set timezone = 'UTC'; select time::date, "+
					"count(*) || ' rows, ' || sum(hashtextextended(h::text, 0)) from "+h+" h group by 1") {
					m[r[0]] = r[1]
				}
				return m
			}
			want, stale := digest(source), digest(target)
			// check returns how many tasks are pending.
			check := func(when string) (pending int) {
				t.Helper()
				have := digest(target)
				for _, r := range target.Rows(t,
					"select to_char(to_timestamp((dimensions->0->>'from')::bigint / 1000000), 'YYYY-MM-DD'), worked "+
						"is null, coalesce(copy_message, '') from __backfill.task where hypertable_name = '"+h+"'") {
					expect := want
					if r[1] == "t" {
						pending++
						expect = stale
					}
					if have[r[0]] != expect[r[0]] {
						t.Errorf("%s %s: %s (pending: %s, %s) has %s, want %s", h, when, r[0], r[1], r[2], have[r[0]],
							expect[r[0]])
					}
				}
				return pending
			}
			lane := func(script string) *session {
				s := start(t, env, script)
				s.wait(t, deadline)
				return s
			}
			if s := lane("bf-stage --until 2024-02-01 --filter '^public." + h + "$'"); s.status() != 0 {
				t.Fatal(s.errors())
			}
			disk.leave(t, 9)
			s := lane("bf-chunks | bf-dump | bf-load")
			pending := check("on a full disk")
			if s.status() != 1 || pending == 0 || pending == 5 ||
				!strings.Contains(s.errors(), "No space left on device") ||
				!strings.Contains(s.errors(),
					"(SQLSTATE 53100)\nhint: the disk is full; nothing of this chunk was kept: "+
						"free space and run again") {
				t.Errorf("%s on a full disk: status %d, %d of 5 tasks are pending\n%s", h, s.status(), pending,
					s.errors())
			}
			disk.leave(t, 200)
			s = lane("bf-chunks | bf-dump | bf-load")
			if left := check("on a larger disk"); s.status() != 0 || left != 0 {
				t.Errorf("%s on a larger disk: status %d, %d tasks are pending\n%s", h, s.status(), left, s.errors())
			}
			if strays := target.Rows(t, "select relname from pg_class where reltablespace <> 0 "+
				"and not relisshared"); len(strays) > 0 {
				t.Errorf("%s: in another tablespace: %v", h, strays)
			}
			t.Logf("%s: %d of 5 chunks met the full disk; %v", h, pending,
				target.Rows(t, "select distinct copy_message from __backfill.task where hypertable_name = '"+h+"'"))
		}
	})
}
