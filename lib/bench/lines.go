package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"

	"github.com/jackc/pgx/v5"
)

// What copies lines of CSV without bf.
const (
	lineWorkers = 2
	lineBatch   = 5000 // rows of a COPY, the default of timescaledb-parallel-copy
)

// byLines copies the CSV that a command prints into a hypertable, in batches of lines over
// several connections, and says what does: timescaledb-parallel-copy where
// BENCH_PARALLEL_COPY names it, else connections of ours that run the same COPY
// statements.
func (s *sides) byLines(table string, csv func() []string) (name string, run func(m *meter) error) {
	if tool := os.Getenv("BENCH_PARALLEL_COPY"); tool != "" {
		return fmt.Sprintf("timescaledb-parallel-copy, %d workers", lineWorkers), func(m *meter) error {
			return m.pipe("", csv(), []string{tool, "--connection", s.dst.uri, "--schema", "public", "--table", table,
				"--workers", strconv.Itoa(lineWorkers), "--batch-size", strconv.Itoa(lineBatch)})
		}
	}
	return fmt.Sprintf("%d connections, COPY csv of %d rows each", lineWorkers, lineBatch), func(m *meter) error {
		r, w, err := os.Pipe()
		if err != nil {
			return err
		}
		done, before := make(chan error, 1), ownCPU()
		go func() { done <- s.batches(r, table); r.Close() }()
		err = m.pipeTo(w, csv())
		w.Close()
		if e := <-done; err == nil {
			err = e
		}
		m.client += ownCPU() - before
		return err
	}
}

// batches copies lines of CSV into a table, some at a time over several connections.
func (s *sides) batches(in io.Reader, table string) error {
	work, failed := make(chan []byte, lineWorkers), make(chan error, lineWorkers)
	var all sync.WaitGroup
	for range lineWorkers {
		all.Go(func() {
			err := s.worker(work, table)
			for range work { // the reader must not wait for nobody
			}
			failed <- err
		})
	}
	lines := bufio.NewReaderSize(in, 1<<20)
	var batch bytes.Buffer
	rows := 0
	for {
		line, err := lines.ReadSlice('\n')
		batch.Write(line)
		if rows++; rows == lineBatch || err != nil {
			work <- bytes.Clone(batch.Bytes())
			batch.Reset()
			rows = 0
		}
		if err != nil {
			break
		}
	}
	close(work)
	all.Wait()
	for range lineWorkers {
		if err := <-failed; err != nil {
			return err
		}
	}
	return nil
}

func (s *sides) worker(work <-chan []byte, table string) error {
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, s.dst.uri)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	for batch := range work {
		_, err := conn.PgConn().CopyFrom(ctx, bytes.NewReader(batch), "copy "+table+" from stdin (format csv)")
		if err != nil {
			return err
		}
	}
	return nil
}
