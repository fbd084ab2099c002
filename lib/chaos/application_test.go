package chaos

import (
	"context"
	"sync"
	"testing"
	"time"

	"bf/lib/testdb"

	"github.com/jackc/pgx/v5"
)

// application writes rows beyond the completion point to the target all the
// time, into chunks that are being loaded in part and into new ones.
type application struct {
	quit  chan struct{}
	ended sync.WaitGroup
	d     *testdb.DB
	acked []int64 // microseconds after the completion point, one row each
	err   error
	once  sync.Once
}

func startApplication(d *testdb.DB) *application {
	a := &application{quit: make(chan struct{}), d: d}
	a.ended.Add(1)
	go a.write()
	return a
}

func (a *application) write() {
	defer a.ended.Done()
	ctx := context.Background()
	var conn *pgx.Conn
	for n := int64(0); ; n++ {
		select {
		case <-a.quit:
			if conn != nil {
				conn.Close(ctx)
			}
			return
		case <-time.After(4 * time.Millisecond):
		}
		if conn == nil || conn.IsClosed() {
			var err error
			if conn, err = pgx.Connect(ctx, a.d.ConnString); err != nil {
				conn = nil
				continue
			}
		}
		// Every hundredth row needs a new chunk.
		at := n + n/100*86400e6
		_, err := conn.Exec(ctx, `with r(time) as (values ($1::timestamptz + $2 * interval '1 microsecond')),
			a as (insert into plain select time, -1, 0, 'application' from r),
			b as (insert into linked select time, 1, 0 from r),
			c as (insert into hashed select time, 1, part(1), 0 from r)
			insert into coarse select time, 1, 0 from r`, until, at)
		if err == nil {
			a.acked = append(a.acked, at)
		} else if !conn.IsClosed() {
			a.err = err
		}
	}
}

func (a *application) stop() {
	a.once.Do(func() { close(a.quit) })
	a.ended.Wait()
}

// check looks for every row that the application was told is committed.
func (a *application) check(t *testing.T) {
	t.Helper()
	for _, h := range []string{"plain", "linked", "coarse", "hashed"} {
		var lost int
		a.d.Query1(t, &lost, "select count(*) from unnest($1::bigint[]) u where not exists (select from "+h+
			" where time = $2::timestamptz + u * interval '1 microsecond')", a.acked, until)
		if lost > 0 {
			t.Errorf("%d of %d rows that the application wrote into %s are lost", lost, len(a.acked), h)
		}
	}
	if a.err != nil {
		t.Errorf("the application was refused: %v", a.err)
	}
}
