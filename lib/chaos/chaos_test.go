package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"bf/lib/testdb"
)

// TestChaos runs backfills and breaks something every few hundredths of a
// second until they are done, then starts over. CHAOS_TIME says for how long,
// over all versions; CHAOS_SEED chooses what is broken (when it hits is up to
// the machine).
func TestChaos(t *testing.T) {
	total, seed := 25*time.Second, uint64(1)
	if s := os.Getenv("CHAOS_TIME"); s != "" {
		var err error
		if total, err = time.ParseDuration(s); err != nil {
			t.Fatal("CHAOS_TIME: ", err)
		}
	}
	if s := os.Getenv("CHAOS_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal("CHAOS_SEED: ", err)
		}
	}
	testdb.Path(t)
	versions := testdb.Installs(t)
	if os.Getenv("CHAOS_TIME") == "" {
		versions = versions[:1]
	}
	for i, in := range versions {
		t.Run(in.String(), func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, uint64(i)))
			c := newChaos(t, newWorld(t, testdb.Pair{Source: in, Target: in}, rnd))
			for end := time.Now().Add(total / time.Duration(len(versions))); time.Now().Before(end); {
				c.backfill(end)
			}
			t.Logf("seed %d, %s:\n%s", seed, c.w, c.report())
		})
	}
}

// chaos breaks things and counts.
type chaos struct {
	*world
	t       *testing.T
	w       string
	kinds   []kind
	faults  map[string]int
	runs    map[string]int // of pipelines, by form
	fed     map[string]int // and by their feed
	ways    map[string]int // of the tasks done, by how
	loaded  map[string]int // "loaded" results by task, of this backfill
	whole   int            // backfills that came to their end
	copied  int            // tasks done in those
	slices  int            // and those of them whose source is no hypertable
	listed  int            // or a file
	written int            // rows of the application
	dropped bool           // a chunk of this backfill was dropped
	app     *application
}

// kind is one way to break things. do returns false when there was nothing to
// break.
type kind struct {
	name   string
	weight int
	do     func(s *session) bool
}

func newChaos(t *testing.T, w *world) *chaos {
	c := &chaos{world: w, t: t, w: fmt.Sprintf("%s to %s", w.source.Install, w.target.Install),
		faults: map[string]int{}, runs: map[string]int{}, fed: map[string]int{}, ways: map[string]int{}}
	c.addProcesses()
	c.addSide("source", w.source, w.toSource)
	c.addSide("target", w.target, w.toTarget)
	c.addLoading()
	c.addStaging()
	c.add("drop a chunk on the source", 1, func(*session) bool { return c.drop() })
	if w.full {
		c.add("compress or decompress on the source", 3, func(*session) bool { return c.compress(w.source) })
		c.add("compress or decompress on the target", 3, func(*session) bool { return c.compress(w.target) })
	}
	return c
}

// addProcesses adds signals to the tools.
func (c *chaos) addProcesses() {
	for _, name := range []string{"bf-dump", "bf-load", "bf-chunks", "xargs", "perl", "sh", "bash"} {
		c.add("kill -9 "+name, 5, func(s *session) bool { return c.signal(s, name, syscall.SIGKILL) })
	}
	for _, name := range []string{"bf-dump", "bf-load", "bf-chunks"} {
		c.add("TERM "+name, 1, func(s *session) bool { return c.signal(s, name, syscall.SIGTERM) })
		c.add("stop "+name+" for a moment", 1, func(s *session) bool {
			pid := s.pick(name, c.rnd.Int())
			if pid == 0 || syscall.Kill(pid, syscall.SIGSTOP) != nil {
				return false
			}
			time.Sleep(c.ms(5, 200))
			return syscall.Kill(pid, syscall.SIGCONT) == nil
		})
	}
	c.add("kill -9 everything", 2, func(s *session) bool {
		ps := s.processes()
		s.kill()
		return len(ps) > 0
	})
}

// addSide adds crashes of a server and of its backends, and breaks of the network to it.
func (c *chaos) addSide(name string, d *testdb.DB, p *proxy) {
	c.add("terminate a backend of the "+name, 5, func(*session) bool {
		return c.backend(d, "pg_terminate_backend")
	})
	c.add("cancel a statement on the "+name, 2, func(*session) bool {
		return c.backend(d, "pg_cancel_backend")
	})
	c.add("cut a connection to the "+name, 5, func(*session) bool { return p.cut(1) > 0 })
	c.add("cut all connections to the "+name, 2, func(*session) bool { return p.cut(-1) > 0 })
	c.add("stall the network to the "+name, 2, func(*session) bool {
		p.stallFor(c.ms(10, 300))
		return true
	})
	c.add("stall, then cut the network to the "+name, 2, func(*session) bool {
		p.setStall(true)
		time.Sleep(c.ms(10, 200))
		n := p.cut(-1)
		p.setStall(false)
		return n > 0
	})
	c.add("crash the "+name, 1, func(*session) bool {
		d.Server.Stop(c.t, "immediate")
		time.Sleep(c.ms(0, 300))
		d.Server.Start(c.t)
		return true
	})
	c.add("crash the "+name+"'s backends", 1, func(*session) bool { return c.crash(d) })
}

// addLoading adds what makes a COPY into the target fail, or wait for a lock.
func (c *chaos) addLoading() {
	c.target.Exec(c.t, `create table mischief (code text);
		insert into mischief values (null);
		create function mischief() returns trigger language plpgsql as $$ declare c text; begin
			select code into c from public.mischief where random() < 0.2;
			if c is not null then raise exception 'simulated' using errcode = c; end if;
			return new; end $$;
		create trigger mischief before insert on plain for each row when (new.dev >= 0) execute function mischief()`)
	for _, e := range []struct{ name, code string }{{"full disk", "53100"}, {"serialization failure", "40001"},
		{"lock timeout", "55P03"}, {"failing trigger", "P0001"}} {
		c.add("COPY error on the target: "+e.name, 1, func(*session) bool {
			c.exec(c.target, "update mischief set code = '"+e.code+"'")
			time.Sleep(c.ms(20, 150))
			c.exec(c.target, "update mischief set code = null")
			return true
		})
	}
	c.add("lock a chunk of the target", 2, func(*session) bool {
		return c.exec(c.target, `do $$ declare c text; begin
			select chunk_schema || '.' || chunk_name into c from timescaledb_information.chunks
			order by random() limit 1;
			execute 'lock table ' || c || ' in access exclusive mode'; perform pg_sleep(0.1); end $$`)
	})
	c.add("hold tasks", 1, func(*session) bool {
		return c.exec(c.target, "do $$ begin perform "+
			"from (select from __backfill.task where random() < 0.1 for update) t; perform pg_sleep(0.1); end $$")
	})
}

// addStaging adds another bf-stage beside the lanes, and changes of the file that is staged.
func (c *chaos) addStaging() {
	c.add("stage again", 1, func(*session) bool {
		f := c.anyFeed()
		_, _, status := c.run(f, f.bfStage())
		return status == 0
	})
	c.add("take the CSV file away", 1, func(*session) bool { return c.change(false) })
	c.add("cut the CSV file", 1, func(*session) bool { return c.change(true) })
	c.add("kill -9 bf-stage", 1, func(*session) bool {
		f := c.anyFeed()
		s := start(c.t, f.env, "exec "+f.bfStage())
		time.Sleep(c.ms(5, 60))
		s.kill()
		s.wait(c.t, deadline)
		return s.status() == -1
	})
}

func (c *chaos) add(name string, weight int, do func(s *session) bool) {
	c.kinds = append(c.kinds, kind{name, weight, do})
}

func (c *chaos) ms(least, most int) time.Duration {
	return time.Duration(least+c.rnd.IntN(most-least+1)) * time.Millisecond
}

// any chooses by weight.
func (c *chaos) any() kind {
	total := 0
	for _, k := range c.kinds {
		total += k.weight
	}
	n := c.rnd.IntN(total)
	for _, k := range c.kinds {
		if n -= k.weight; n < 0 {
			return k
		}
	}
	panic("unreachable")
}

func (c *chaos) signal(s *session, name string, sig syscall.Signal) bool {
	pid := s.pick(name, c.rnd.Int())
	return pid != 0 && syscall.Kill(pid, sig) == nil
}

// exec runs SQL on a connection that may be killed under it.
func (c *chaos) exec(d *testdb.DB, sql string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	conn := c.admin(ctx, d)
	defer conn.Close(ctx)
	results, err := conn.PgConn().Exec(ctx, "set lock_timeout = '1s';"+sql).ReadAll()
	return err == nil && (len(results[len(results)-1].Rows) > 0 || !strings.HasPrefix(sql, "select"))
}

func (c *chaos) backend(d *testdb.DB, function string) bool {
	return c.exec(d, "select "+function+"(pid) "+
		"from (select pid from pg_stat_activity where application_name like 'bf-%' order by random() limit 1) b")
}

// crash kills a backend for good; the server then ends all others and recovers.
func (c *chaos) crash(d *testdb.DB) bool {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	conn := c.admin(ctx, d)
	defer conn.Close(ctx)
	var pid int
	err := conn.QueryRow(ctx, "select pid from pg_stat_activity where application_name like 'bf-%' "+
		"order by random() limit 1").Scan(&pid)
	if err != nil || syscall.Kill(pid, syscall.SIGKILL) != nil {
		return false
	}
	// The server ends all sessions and recovers; then it is there again.
	for conn.Ping(ctx) == nil {
		time.Sleep(5 * time.Millisecond)
	}
	c.admin(ctx, d).Close(ctx)
	return true
}

// drop drops the oldest chunk of the source, as retention does.
func (c *chaos) drop() bool {
	if c.dropped {
		return false
	}
	const oldest = "plain/2024-01-01"
	c.gone[oldest] = true // whether it was copied before is for the task to say
	c.dropped = c.exec(c.source, "select drop_chunks('plain', older_than => '2024-01-02'::timestamptz)")
	return c.dropped
}

func (c *chaos) compress(d *testdb.DB) bool {
	return c.exec(d, `do $$ declare c regclass; z bool; begin
		select format('%I.%I', chunk_schema, chunk_name)::regclass, is_compressed into c, z
		from timescaledb_information.chunks k
		where hypertable_name in ('packed', 'tight', 'watched') order by random() limit 1;
		if c is null then raise exception 'none'; end if;
		if z then perform decompress_chunk(c); else perform compress_chunk(c); end if; end $$`)
}

// The forms of the pipeline.
var forms = map[string]string{
	"scripts/backfill":     `exec "$SCRIPTS/backfill" --parallelism 3 {stage}`,
	"parallel --pipe":      "bf-chunks {filter} | parallel --will-cite --pipe -N10 -j3 'bf-dump | bf-load'",
	"one lane":             "bf-chunks {filter} | bf-dump | bf-load",
	"one lane, zstd":       "bf-chunks {filter} | bf-dump --compress zstd | bf-load",
	"xargs -P3 -n1":        `bf-chunks {filter} | xargs -r -P3 -d '\n' -n1 sh -c 'bf-dump "$1" | bf-load' _`,
	"xargs -P3 -n7":        `bf-chunks {filter} | xargs -r -P3 -d '\n' -n7 sh -c 'bf-dump "$@" | bf-load' _`,
	"eight claiming lanes": "for i in 1 2 3 4 5 6 7 8; do bf-chunks {filter} --claim | bf-dump | bf-load & done; wait",
	"through a file":       "bf-chunks {filter} --order oldest | head -n 20 | bf-dump > dump; bf-load < dump",
}

// backfill runs one from the first to the last chunk, or until the end.
func (c *chaos) backfill(end time.Time) {
	c.reset()
	c.loaded, c.dropped = map[string]int{}, false
	c.app = startApplication(c.target)
	defer c.app.stop()
	// Staging itself is killed, too: it leaves everything or nothing.
	for c.rnd.IntN(2) == 0 {
		f := c.anyFeed()
		s := start(c.t, f.env, "exec "+f.bfStage())
		time.Sleep(c.ms(5, 60))
		s.kill()
		s.wait(c.t, deadline)
		c.faults["kill -9 bf-stage"]++
	}
	c.stage()
	names := slices.Sorted(maps.Keys(forms))
	if _, err := exec.LookPath("parallel"); err != nil {
		names = slices.DeleteFunc(names, func(n string) bool { return strings.HasPrefix(n, "parallel") })
	}
	pending := c.check("staging")
	all := pending
	for runs := 0; pending > 0; runs++ {
		if runs > 200 {
			c.t.Fatalf("no end in sight: %d tasks are pending", pending)
		}
		if time.Now().After(end) && runs > 0 {
			return
		}
		if c.rnd.IntN(8) == 0 {
			c.damage()
		} else {
			c.disturb(names[c.rnd.IntN(len(names))])
		}
		pending = c.check("a pipeline")
	}
	for cell, want := range c.cells(c.target) {
		if want != c.want[cell] && !c.gone[cell] {
			c.t.Errorf("in the end: %s has %s, want %s", cell, want, c.want[cell])
		}
	}
	c.app.stop()
	c.app.check(c.t)
	c.written += len(c.app.acked)
	c.whole++
	c.copied += all
	var slices int
	c.target.Query1(c.t, &slices, "select count(*)::int from __backfill.task "+
		"where kind = 'slice' and scan->>'by' = 'blocks'")
	if slices == 0 {
		c.t.Error("nothing came from a table that is no hypertable")
	}
	c.slices += slices
	var listed int
	c.target.Query1(c.t, &listed, "select count(*)::int from __backfill.task where kind = 'csv'")
	if listed == 0 {
		c.t.Error("nothing came from a file")
	}
	c.listed += listed
	for _, r := range c.target.Rows(c.t, "select split_part(copy_message, ':', 1), count(*) from __backfill.task "+
		"group by 1") {
		n, _ := strconv.Atoi(r[1])
		c.ways[r[0]] += n
	}
}

// disturb runs a pipeline and breaks things until it ends.
func (c *chaos) disturb(form string) {
	f := c.feed()
	c.runs[form]++
	c.fed[f.name]++
	s := start(c.t, f.env, f.pipeline(forms[form]))
	// Some runs are left alone for longer, so that there is progress.
	pause := []int{20, 60, 250}[c.rnd.IntN(3)]
	for len(s.processes()) > 0 {
		time.Sleep(c.ms(1, pause))
		if len(s.processes()) == 0 {
			break
		}
		if k := c.any(); k.do(s) {
			c.faults[k.name]++
			c.check(k.name)
		}
	}
	s.wait(c.t, deadline)
	c.results(s.output())
}

// results counts what bf-load says it has loaded: no task twice.
func (c *chaos) results(out string) {
	for line := range strings.Lines(out) {
		var r struct {
			Task   int
			Status string
		}
		if json.Unmarshal([]byte(line), &r) != nil {
			continue // of a bf-load that was killed
		}
		if r.Status == "loaded" {
			task := strconv.Itoa(r.Task)
			if c.loaded[task]++; c.loaded[task] > 1 {
				c.t.Errorf("task %s was loaded twice", task)
			}
		}
	}
}

// damage sends a stream through something that damages it.
func (c *chaos) damage() {
	kinds := []string{"flip a bit", "cut", "drop bytes", "repeat bytes", "insert garbage", "zero bytes"}
	name := kinds[c.rnd.IntN(len(kinds))]
	c.runs["through a bad pipe"]++
	compress := []string{"none", "zstd", "s2"}[c.rnd.IntN(3)]
	f := c.feed()
	c.fed[f.name]++
	dump := exec.Command("sh", "-c", f.pipeline("bf-chunks {filter} | head -n 12 | bf-dump --compress "+compress))
	load := exec.Command("bf-load")
	var out, errs strings.Builder
	load.Stdout, load.Stderr, dump.Stderr = &out, &errs, &errs
	dump.Env, load.Env = append(os.Environ(), f.env...), append(os.Environ(), c.env...)
	from, err := dump.StdoutPipe()
	if err == nil {
		err = dump.Start()
	}
	if err != nil {
		c.t.Fatal(err)
	}
	stream, err := io.ReadAll(from)
	if err != nil {
		c.t.Fatal(err)
	}
	if err := dump.Wait(); err != nil || len(stream) < 100 {
		c.t.Fatalf("bf-dump: %v\n%s", err, errs.String())
	}
	at := c.rnd.IntN(len(stream) - 20)
	n := 1 + c.rnd.IntN(19)
	var bad []byte
	switch name {
	case "flip a bit":
		bad = slices.Clone(stream)
		bad[at] ^= 1 << c.rnd.IntN(8)
	case "cut":
		bad = stream[:at]
	case "drop bytes":
		bad = slices.Delete(slices.Clone(stream), at, at+n)
	case "repeat bytes":
		bad = slices.Insert(slices.Clone(stream), at, stream[at:at+n]...)
	case "insert garbage":
		bad = slices.Insert(slices.Clone(stream), at, []byte("garbage")[:1+n%7]...)
	case "zero bytes":
		bad = slices.Clone(stream)
		clear(bad[at : at+n])
		if slices.Equal(bad, stream) {
			bad[at] = 0xff
		}
	}
	load.Stdin = strings.NewReader(string(bad))
	err = load.Run()
	c.results(out.String())
	if load.ProcessState.ExitCode() != 1 {
		c.t.Errorf("%s at %d of %d: bf-load: %v\n%s", name, at, len(stream), err, errs.String())
	}
	c.faults["damage the stream: "+name]++
	c.check(name)
}

func (c *chaos) report() string {
	var b strings.Builder
	total := 0
	for _, name := range slices.Sorted(maps.Keys(c.faults)) {
		fmt.Fprintf(&b, "%7d  %s\n", c.faults[name], name)
		total += c.faults[name]
	}
	fmt.Fprintf(&b, "%7d  faults in", total)
	runs := 0
	for _, name := range slices.Sorted(maps.Keys(c.runs)) {
		runs += c.runs[name]
	}
	fmt.Fprintf(&b, " %d pipelines of %d backfills; %d backfills came to their end with %d tasks, each worked once\n",
		runs, c.whole+1, c.whole, c.copied)
	fmt.Fprintf(&b, "%7d  of them of a table that is no hypertable, by its blocks\n", c.slices)
	fmt.Fprintf(&b, "%7d  of them of a CSV file; pipelines: %v\n", c.listed, c.fed)
	for _, way := range slices.Sorted(maps.Keys(c.ways)) {
		fmt.Fprintf(&b, "%7d  tasks: %s\n", c.ways[way], way)
	}
	fmt.Fprintf(&b, "%7d  times a chunk was found whole or untouched\n", c.checked)
	fmt.Fprintf(&b, "%7d  rows of the application written meanwhile, none lost\n", c.written)
	return b.String()
}
