package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"bf/lib/testdb"
)

// execWorld is a target with a hypertable of daily chunks, and what a command shall print.
func execWorld(t *testing.T, p testdb.Pair) *pair {
	t.Helper()
	dst := testdb.New(t, p.Target, "target")
	dst.Exec(t, `create table "M etrics" (device int, time timestamptz not null, value float8, note text);
        select create_hypertable('"M etrics"', 'time', chunk_time_interval => interval '1 day')`)
	return &pair{dst: dst, target: dst.ConnString}
}

// stageExec stages a command for the first days of 2024.
func (p *pair) stageExec(t *testing.T, command string, args ...string) result {
	t.Helper()
	return p.run(t, "", "bf-stage", append([]string{"--source", "exec:" + command, "--target", p.target,
		"--into", `"M etrics"`, "--from", "2024-01-01", "--until", "2024-01-04 12:00"}, args...)...)
}

// lane runs the pipeline with a command.
func (p *pair) execLane(t *testing.T, command string, chunks, load string) result {
	t.Helper()
	return p.run(t, "", "sh", "-c", `bf-chunks --target "$TARGET" `+chunks+
		` | BF_SOURCE="exec:$0" bf-dump | bf-load --target "$TARGET" `+load, command)
}

func (p *pair) count(t *testing.T, where string) (n int) {
	t.Helper()
	p.dst.Query1(t, &n, `select count(*) from "M etrics" where `+where)
	return n
}

// TestExec: a command becomes a task per chunk of the target, is run with the range in its
// environment, and its rows are in the place of what was there; rows beside the range stay.
func TestExec(t *testing.T) {
	testdb.EachVersion(t, func(t *testing.T, pair testdb.Pair) {
		p := execWorld(t, pair)
		// Dual-written rows before T are replaced, those from T on stay; no unique key is needed.
		p.dst.Exec(t, `insert into "M etrics" values (9, '2024-01-04 11:00+00', 9, 'dual'),
            (9, '2024-01-04 12:00+00', 9, 'stays'), (9, '2023-12-31 23:59+00', 9, 'stays')`)
		sh := filepath.Join(t.TempDir(), "export")
		script := `#!/bin/sh
echo "$BF_TABLE $BF_FROM $BF_UNTIL $BF_FROM_US $BF_UNTIL_US" >>"$0.log"
case $BF_FROM in *01-02*) exit 0;; esac # no rows, and no header either
day=${BF_FROM%% *}
cat <<END
note,time,value
"a ""quoted""
line",$day 00:00:00+00,1.5
\.,${day}T11:59:59.999999Z,
\N,$day 01:00:00+00,2
"",$day 02:00:00+00,NaN
END
`
		if err := os.WriteFile(sh, []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
		staged := p.stageExec(t, sh)
		if staged.status != 0 || len(records(t, staged.stdout)) != 4 {
			t.Fatalf("bf-stage: %d\n%s%s", staged.status, staged.stdout, staged.stderr)
		}
		if again := p.stageExec(t, sh); again.status != 0 || again.stdout != "" {
			t.Errorf("staging again: %d\n%s%s", again.status, again.stdout, again.stderr)
		}
		if r := p.execLane(t, sh, "", ""); r.status != 0 {
			t.Fatalf("lane: %d\n%s", r.status, r.stderr)
		}
		log, err := os.ReadFile(sh + ".log")
		if err != nil || !strings.Contains(string(log),
			"\"M etrics\" 2024-01-04 00:00:00+00 2024-01-04 12:00:00+00 1704326400000000 1704369600000000\n") {
			t.Errorf("environment: %s, %v", log, err)
		}
		got := fmt.Sprint(p.dst.Rows(t, `select time at time zone 'UTC', coalesce(value::text, 'NULL'),
            coalesce(note, 'NULL') from "M etrics" where time < '2024-01-02' and time >= '2024-01-01' order by time`))
		want := "[[2024-01-01 00:00:00 1.5 a \"quoted\"\nline] [2024-01-01 01:00:00 2 \\N] " +
			"[2024-01-01 02:00:00 NaN ] [2024-01-01 11:59:59.999999 NULL \\.]]"
		if got != want {
			t.Errorf("rows %s\nwant %s", got, want)
		}
		// The command is run again and compared, with the casts of the target.
		verify := func() result { return p.run(t, "", "bf-verify", "--source", "exec:"+sh, "--target", p.target) }
		if r := verify(); r.status != 0 || strings.Count(r.stdout, `"verified"`) != 4 {
			t.Errorf("bf-verify: %d\n%s%s", r.status, r.stdout, r.stderr)
		}
		if n := p.count(t, "true"); n != 3*4+2 {
			t.Errorf("%d rows", n)
		}
		if n := p.count(t, "note = 'stays'"); n != 2 {
			t.Errorf("%d rows beside the range are left", n)
		}
		p.dst.Exec(t, `update "M etrics" set value = 2.5 where value = 2 and time < '2024-01-02'`)
		r := p.run(t, "", "bf-verify", "--source", "exec:"+sh, "--target", p.target, "--all")
		if r.status != 3 || strings.Count(r.stdout, `"differs"`) != 1 || strings.Count(r.stdout, `"verified"`) != 3 {
			t.Errorf("bf-verify after a change: %d\n%s%s", r.status, r.stdout, r.stderr)
		}
	})
}

// TestExecAttached: that a command prints much is known before its rows are sent, and a chunk of
// much is loaded, indexed and attached.
func TestExecAttached(t *testing.T) {
	any := false
	testdb.EachFull(t, func(t *testing.T, pair testdb.Pair) {
		if !attaches(pair.Target) {
			t.Skip("attached chunks of this version are defective")
		}
		any = true
		p := execWorld(t, pair)
		// 8 MB of a field, 2 MB of rows, a few rows, none.
		command := `day=${BF_FROM%% *}; echo time,device,note
            case $day in
            *-01) echo "$day 05:00:00+00,1,$(head -c 8000000 /dev/zero | tr '\0' x)" ;;
            *-02) seq -f "$day 06:00:00+00,%.0f,status of the device" 30000 ;;
            *-03) echo "$day 07:00:00+00,3," ;;
            esac`
		if r := p.stageExec(t, command); r.status != 0 {
			t.Fatalf("bf-stage: %d\n%s", r.status, r.stderr)
		}
		if r := p.execLane(t, command, "", ""); r.status != 0 {
			t.Fatalf("lane: %d\n%s", r.status, r.stderr)
		}
		got := fmt.Sprint(p.dst.Rows(t, `select dimensions->0->>'from', rows, copy_message like '%became the chunk%'
            from __backfill.task order by 1`))
		want := "[[1704067200000000 1 t] [1704153600000000 30000 t] [1704240000000000 1 f] [1704326400000000 0 f]]"
		if got != want {
			t.Errorf("%s, want %s", got, want)
		}
		if r := p.run(t, "", "bf-verify", "--source", "exec:"+command, "--target", p.target); r.status != 0 {
			t.Errorf("bf-verify: %d\n%s%s", r.status, r.stdout, r.stderr)
		}
	})
	if !any {
		t.Skip("needs a TimescaleDB whose attached chunks are as good as its own")
	}
}

// TestExecFails: whatever is wrong with a command fails its task, and what the target held
// is as it was.
func TestExecFails(t *testing.T) {
	p := execWorld(t, testdb.Pair{Target: testdb.Installs(t)[0]})
	p.dst.Exec(t, `insert into "M etrics" select 1, timestamptz '2024-01-01' + i * interval '6 hours', i, 'before'
        from generate_series(0, 13) i`)
	if r := p.stageExec(t, "true"); r.status != 0 {
		t.Fatal(r.stderr)
	}
	row := `echo time,value; echo "$BF_FROM,1"; `
	for name, c := range map[string]struct{ command, want string }{
		"status":          {row + "exit 7", "exit status 7"},
		"signal":          {row + "kill -TERM $$", "signal 15 (terminated)"},
		"signal mid-row":  {row + "printf 2024; kill -KILL $$", "signal 9"},
		"half a row":      {row + `printf "$BF_FROM,"`, "ends in the middle of a line"},
		"open quote":      {row + `echo "$BF_FROM,\"1"`, "a quote is opened and never closed"},
		"a field more":    {row + `echo "$BF_FROM,1,2"`, ":3: 3 fields, and there are 2 columns"},
		"next slice":      {row + `echo "$BF_UNTIL,1"`, ":3: row outside of "},
		"unknown column":  {`echo time,nonsense`, `no column of this name: "nonsense"`},
		"no time":         {`echo device; echo 1`, "no column time"},
		"value":           {row + `echo "$BF_FROM,oops"`, "22P02"},
		"nothing":         {"true", "printed no rows, and the target has some"},
		"a header alone":  {"echo time", "printed no rows, and the target has some"},
		"no such command": {"no-such-command-here", "exit status 127"},
		"not UTF-8":       {`echo time,note; printf '%s,Z\374rich\n' "$BF_FROM"`, "not UTF-8"},
		"a server error": {`psql -X "$TARGET" -c "copy (select * from nowhere) to stdout csv header"`,
			"exit status 1"},
	} {
		t.Run(name, func(t *testing.T) {
			r := p.execLane(t, c.command, "--pending --filter .", "")
			if r.status != 1 || !strings.Contains(r.stderr, c.want) {
				t.Errorf("status %d, want %q in\n%s", r.status, c.want, r.stderr)
			}
			if n := p.count(t, "note = 'before'"); n != 14 || p.count(t, "true") != n {
				t.Errorf("%d rows are left", n)
			}
		})
	}
	if r := p.execLane(t, "true", "", "--force"); r.status != 0 || p.count(t, "true") != 0 {
		t.Errorf("--force: %d, %d rows\n%s", r.status, p.count(t, "true"), r.stderr)
	}
}

// TestExecUsage: what does not go together is said before anything is done.
func TestExecUsage(t *testing.T) {
	p := execWorld(t, testdb.Pair{Target: testdb.Installs(t)[0]})
	ok := []string{"--source", "exec:true", "--target", p.target, "--into", `"M etrics"`,
		"--from", "2024-01-01", "--until", "2024-01-02"}
	without := func(flag string) (args []string) {
		for i := 0; i < len(ok); i += 2 {
			if ok[i] != flag {
				args = append(args, ok[i], ok[i+1])
			}
		}
		return args
	}
	for want, args := range map[string][]string{
		"--from is required":    without("--from"),
		"--until is required":   without("--until"),
		"--into is required":    without("--into"),
		"--target is required":  without("--target"),
		"do not go with CSV":    append(without(""), "--cascade-up"),
		"--columns is required": append(without(""), "--no-header"),
		"delimiter":             append(without(""), "--delimiter", "ab"),
		"no column \"x\"":       append(without(""), "--columns", "time,x"),
		"time column":           append(without(""), "--columns", "value"),
		"go with a source that is": {"--source", "dbname=x", "--target", p.target, "--until", "2024-01-02",
			"--into", "m"},
	} {
		r := p.run(t, "", "bf-stage", args...)
		if r.status != 2 || r.stdout != "" || !strings.Contains(r.stderr, want) {
			t.Errorf("%q: status %d\n%s", args, r.status, r.stderr)
		}
	}
}

// TestExecStop: the first ^C lets the command end, the second ends it and what it has
// started. What is in a table's name is data to the command.
func TestExecStop(t *testing.T) {
	dst := testdb.New(t, testdb.Installs(t)[0], "target")
	name := "\"a $(touch /tmp/bf-exec-test-x) ' \"\" é\n;false\""
	dst.Exec(t, `create table `+name+` (time timestamptz not null); `+
		`select create_hypertable('`+strings.ReplaceAll(name, "'", "''")+`', 'time')`)
	p := &pair{dst: dst, target: dst.ConnString}
	rec := p.ok(t, "", "bf-stage", "--source", "exec:x", "--target", p.target, "--into", name,
		"--from", "2024-01-02", "--until", "2024-01-03")
	dir := t.TempDir()
	for signals, command := range map[int]string{
		1: `echo $$ >begun; echo time; sleep 2; echo "$BF_TABLE" >table`,
		2: `echo time; sleep 300 & echo $! >pid; echo $$ >begun; wait`,
	} {
		cmd := p.command(t, "bf-dump", "--source", "exec:"+command)
		cmd.Dir, cmd.Stdin = dir, strings.NewReader(rec+rec)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		begun := filepath.Join(dir, "begun")
		waitFor(t, func() bool { return os.Remove(begun) == nil })
		for range signals {
			time.Sleep(700 * time.Millisecond) // two at once are one
			if err := cmd.Process.Signal(os.Interrupt); err != nil {
				t.Fatal(err)
			}
		}
		if _ = cmd.Wait(); cmd.ProcessState.ExitCode() != 130 {
			t.Errorf("%d signals: %v", signals, cmd.ProcessState)
		}
	}
	if b, err := os.ReadFile(filepath.Join(dir, "table")); err != nil || string(b) != `"public".`+name+"\n" {
		t.Errorf("the command was not let end, or saw %s (%v)", b, err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "pid"))
	if err != nil {
		t.Fatal(err)
	}
	// It is told to end; when it does is up to the machine.
	waitFor(t, func() bool {
		stat, err := os.ReadFile("/proc/" + strings.TrimSpace(string(b)) + "/stat")
		return err != nil || strings.Contains(string(stat), ") Z")
	})
}

// TestExecForecast: what a command will print is not known before it has run, and it takes no
// locks on a source.
func TestExecForecast(t *testing.T) {
	testdb.EachEdge(t, func(t *testing.T, pair testdb.Pair) {
		p := execWorld(t, pair)
		r := p.stageExec(t, "exit 1", "--dry-run")
		table := regexp.MustCompile(`(?m)^(public\.M etrics|total) +4 +0 +\? +\? +\?`)
		if r.status != 0 || len(table.FindAllString(r.stderr, -1)) != 2 || strings.Contains(r.stderr, "source:") {
			t.Errorf("dry run: status %d\n%s", r.status, r.stderr)
		}
		r = p.stageExec(t, "exit 1")
		if r.status != 0 || !strings.Contains(r.stderr, "4 of 4 chunks newly staged, of") {
			t.Errorf("staged: status %d\n%s", r.status, r.stderr)
		}
	})
}
