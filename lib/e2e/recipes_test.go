package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"bf/lib/testdb"
)

// recipeRows are the rows of a recipe's source, here by PostgreSQL: 201 hours, values that are
// NULL, and notes that are NULL, empty, or have quotes, a backslash and a line end.
const recipeRows = `select timestamptz '2024-01-01' + i * interval '1 hour' as time, i as device,
    case when i % 5 > 0 then i / 2.0 end::float8 as value,
    case i % 7 when 0 then null when 1 then '' else 'a "q", \ ' || i || chr(10) end as note
    from generate_series(0, 200) i`

// recipe makes the source of a recipe in dir, and a directory of programs that find it.
var recipe = map[string]func(t *testing.T, p *pair, dir, bin string){
	"psql": func(t *testing.T, p *pair, dir, bin string) { p.src.Exec(t, "create table history as "+recipeRows) },
	"sqlite3": func(t *testing.T, p *pair, dir, bin string) {
		succeeds(t, dir, "sqlite3", "history.db",
			`create table history (time integer, device integer, value real, note text);
            with recursive s(i) as (select 0 union all select i + 1 from s where i < 200)
            insert into history select 1704067200 + i * 3600, i, case when i % 5 > 0 then i / 2.0 end,
                case i % 7 when 0 then null when 1 then '' else 'a "q", \ ' || i || char(10) end from s`)
	},
	"duckdb": func(t *testing.T, p *pair, dir, bin string) {
		if err := os.Mkdir(filepath.Join(dir, "history"), 0o755); err != nil {
			t.Fatal(err)
		}
		succeeds(t, dir, "duckdb", "-no-init", "-c", `copy (select timestamp '2024-01-01' + i * interval 1 hour as time,
            i as device, case when i % 5 > 0 then i / 2.0 end as value,
            case i % 7 when 0 then null when 1 then '' else 'a "q", \ ' || i || chr(10) end as note
            from range(0, 201) t(i)) to 'history/a.parquet'`)
	},
	"mariadb":           mariadbRecipe,
	"clickhouse-client": clickhouseRecipe,
	"influx":            influxRecipe,
}

// TestExecExamples runs the examples of bf-exec(7) whose programs are here. A value that one of
// them would change is told by the rows.
func TestExecExamples(t *testing.T) {
	var page page
	for _, p := range pages(t) {
		if p.name == "bf-exec" {
			page = p
		}
	}
	found := regexp.MustCompile(`(?m)^\.\\" executed: (.*)\n\.Bd -literal\n((?s:.*?))^\.Ed$`).
		FindAllStringSubmatch(page.source, -1)
	if len(found) != len(recipe) {
		t.Fatalf("%d examples", len(found))
	}
	for _, m := range found {
		t.Run(m[1], func(t *testing.T) {
			if _, err := exec.LookPath(m[1]); err != nil {
				t.Skip("needs " + m[1])
			}
			in := testdb.Installs(t)[0]
			p := newPair(t, testdb.Pair{Source: in, Target: in})
			p.dst.Exec(t, `create table metrics (device int, value float8, note text, time timestamptz not null);
                select create_hypertable('metrics', 'time', chunk_time_interval => interval '1 day')`)
			dir, bin := t.TempDir(), t.TempDir()
			recipe[m[1]](t, p, dir, bin)
			cmd := p.command(t, "sh", "-ec", text(t, m[2]))
			cmd.Dir = dir
			cmd.Env = append(cmd.Env, "DATABASE="+p.source,
				"PATH="+strings.Join([]string{bin, testdb.Bin(t), os.Getenv("PATH")}, string(os.PathListSeparator)))
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			rows := recipeRows
			if m[1] == "influx" {
				rows = "select time, device, value, nullif(rtrim(note, chr(10)), '') as note from (" + rows + ") _"
			}
			var n int
			p.dst.Query1(t, &n, "select count(*) from (select time, device, value, note from metrics "+
				"intersect select * from ("+rows+") _ where device < 168) _")
			if n != 168 {
				t.Errorf("%d rows; those of the target are %s", n,
					p.dst.Rows(t, "select * from metrics order by time limit 9"))
			}
			p.dst.Query1(t, &n, "select count(*) from __backfill.task where verified is not null")
			if n != 7 {
				t.Errorf("%d tasks are verified", n)
			}
		})
	}
}

func mariadbRecipe(t *testing.T, _ *pair, dir, bin string) {
	socket := filepath.Join(bin, "s")
	succeeds(t, dir, needed(t, "mariadb-install-db"), "--no-defaults", "--datadir="+dir+"/data", "--user=root",
		"--auth-root-authentication-method=normal")
	serve(t, dir, needed(t, "mariadbd"), "--no-defaults", "--datadir="+dir+"/data", "--user=root", "--socket="+socket,
		"--skip-networking", "--innodb-buffer-pool-size=16M")
	wrap(t, bin, "mariadb", "--no-defaults --socket="+socket+" --user=root")
	ready(t, filepath.Join(bin, "mariadb"), "-e", "select 1")
	succeeds(t, dir, filepath.Join(bin, "mariadb"), "-e", `create database history character set utf8mb4;
        create table history.history (time datetime(6), device int, value double, note text);
        insert into history.history select timestamp'2024-01-01 00:00:00' + interval seq hour, seq,
            case when seq % 5 > 0 then seq / 2.0 end,
            case seq % 7 when 0 then null when 1 then '' else concat('a "q", \\ ', seq, '\n') end
            from history.seq_0_to_200`)
}

func clickhouseRecipe(t *testing.T, _ *pair, dir, bin string) {
	server := needed(t, "clickhouse-server")
	port := freePort(t)
	write(t, filepath.Join(dir, "users.xml"), `<yandex><profiles><default/></profiles><quotas><default/></quotas>
        <users><default><password/><networks><ip>::/0</ip></networks><profile>default</profile>
        <quota>default</quota></default></users>
        </yandex>`)
	write(t, filepath.Join(dir, "config.xml"), fmt.Sprintf(`<yandex><tcp_port>%d</tcp_port>
        <listen_host>127.0.0.1</listen_host>
        <path>%[2]s/data/</path><tmp_path>%[2]s/tmp/</tmp_path><users_config>%[2]s/users.xml</users_config>
        <mark_cache_size>5368709120</mark_cache_size><default_profile>default</default_profile>
        <logger><level>error</level><log>%[2]s/log</log><errorlog>%[2]s/errors</errorlog></logger>
        <default_database>default</default_database></yandex>`, port, dir))
	serve(t, dir, server, "--config-file="+dir+"/config.xml")
	wrap(t, bin, "clickhouse-client", fmt.Sprint("--port ", port))
	client := filepath.Join(bin, "clickhouse-client")
	ready(t, client, "--query", "select 1")
	succeeds(t, dir, client, "--query", `create table history (time DateTime, device Int32, value Nullable(Float64),
        note Nullable(String)) engine = MergeTree partition by toYYYYMM(time) order by time`)
	succeeds(t, dir, client, "--query", `insert into history select toDateTime(1704067200 + number * 3600), number,
        if(number % 5 > 0, number / 2, null), multiIf(number % 7 = 0, null, number % 7 = 1, '',
            concat('a "q", \\ ', toString(number), '\n'))
        from (select number from system.numbers limit 201)`)
}

func influxRecipe(t *testing.T, _ *pair, dir, bin string) {
	server := needed(t, "influxd")
	port := freePort(t)
	write(t, filepath.Join(dir, "config"), fmt.Sprintf(`reporting-disabled = true
        bind-address = "127.0.0.1:%d"
        [meta]
        dir = "%[3]s/meta"
        [data]
        dir = "%[3]s/data"
        wal-dir = "%[3]s/wal"
        [http]
        bind-address = "127.0.0.1:%[2]d"
        [monitor]
        store-enabled = false
        `, freePort(t), port, dir))
	serve(t, dir, server, "-config", dir+"/config")
	wrap(t, bin, "influx", fmt.Sprint("-host 127.0.0.1 -port ", port))
	influx := filepath.Join(bin, "influx")
	ready(t, influx, "-execute", "show databases")
	points := "# DDL\ncreate database history\n# DML\n# CONTEXT-DATABASE: history\n"
	for i := range 201 {
		fields := fmt.Sprintf("device=%di", i)
		if i%5 > 0 {
			fields += fmt.Sprintf(",value=%g", float64(i)/2)
		}
		if i%7 > 1 {
			fields += fmt.Sprintf(`,note="a \"q\", \\ %d"`, i)
		}
		points += fmt.Sprintf("history %s %d\n", fields, (1704067200+int64(i)*3600)*1e9)
	}
	write(t, filepath.Join(dir, "points"), points)
	succeeds(t, dir, influx, "-import", "-path", "points", "-precision", "ns")
}

// needed is a program without which a recipe cannot be tried.
func needed(t *testing.T, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		if path, err = exec.LookPath("/usr/sbin/" + program); err != nil {
			t.Skip("needs " + program)
		}
	}
	return path
}

// wrap puts a program into bin that is the one of that name, with options.
func wrap(t *testing.T, bin, program, options string) {
	t.Helper()
	path := needed(t, program)
	write(t, filepath.Join(bin, program), fmt.Sprintf("#!/bin/sh\nexec %s %s \"$@\"\n", path, options))
	if err := os.Chmod(filepath.Join(bin, program), 0o755); err != nil {
		t.Fatal(err)
	}
}

// serve runs a server until the end of the test.
func serve(t *testing.T, dir, program string, args ...string) {
	t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Dir = dir
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
}

// ready waits until a program succeeds.
func ready(t *testing.T, program string, args ...string) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		out, err := exec.Command(program, args...).CombinedOutput()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Skipf("its server does not start here: %v\n%s", err, out)
		}
	}
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// succeeds runs a program that must.
func succeeds(t *testing.T, dir, program string, args ...string) {
	t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", program, err, out)
	}
}
