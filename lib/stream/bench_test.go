package stream

import (
	"bytes"
	"encoding/binary"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"syscall"
	"testing"
	"time"
)

// copyRows returns n rows as a binary COPY sends them (a time, an int, ten
// floats with few digits, a text), and where each of them begins.
func copyRows(n int) (data []byte, starts []int) {
	rnd := rand.New(rand.NewPCG(1, 2))
	field := func(b []byte, v any) []byte {
		b = binary.BigEndian.AppendUint32(b, uint32(binary.Size(v)))
		b, _ = binary.Append(b, binary.BigEndian, v)
		return b
	}
	var level [10]float64
	for i := range n {
		starts = append(starts, len(data))
		data = binary.BigEndian.AppendUint16(data, 13)
		data = field(data, int64(i)*1e6)
		data = field(data, int32(rnd.IntN(100)))
		for j := range level {
			level[j] += rnd.NormFloat64()
			data = field(data, math.Round(level[j]*100)/100)
		}
		data = field(data, []byte("some text that belongs to the row!"))
	}
	return data, starts
}

func eachCodec(b *testing.B, f func(b *testing.B, c Compression)) {
	for _, name := range []string{"none", "s2", "zstd", "zstd:3"} {
		c, err := ParseCompression(name)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(name, func(b *testing.B) { f(b, c) })
	}
}

// BenchmarkWrite writes as COPY does, a row at a time, and as a reader of the
// raw protocol does, in large pieces.
func BenchmarkWrite(b *testing.B) {
	data, starts := copyRows(50_000)
	write := func(b *testing.B, c Compression, pieces [][]byte) {
		b.SetBytes(int64(len(data)))
		w := begin(b, io.Discard, c)
		for b.Loop() {
			for _, p := range pieces {
				if _, err := w.Write(p); err != nil {
					b.Fatal(err)
				}
			}
		}
		b.ReportMetric(float64(w.Bytes())/float64(w.part.Bytes), "size")
	}
	var rows, blocks [][]byte
	for i, s := range starts {
		e := len(data)
		if i+1 < len(starts) {
			e = starts[i+1]
		}
		rows = append(rows, data[s:e])
	}
	for rest := data; len(rest) > 0; {
		k := min(len(rest), 200_000)
		blocks = append(blocks, rest[:k])
		rest = rest[k:]
	}
	b.Run("rows", func(b *testing.B) {
		eachCodec(b, func(b *testing.B, c Compression) { write(b, c, rows) })
	})
	b.Run("blocks", func(b *testing.B) {
		eachCodec(b, func(b *testing.B, c Compression) { write(b, c, blocks) })
	})
}

func BenchmarkRead(b *testing.B) {
	data, _ := copyRows(50_000)
	eachCodec(b, func(b *testing.B, c Compression) {
		var wire bytes.Buffer
		w := begin(b, &wire, c)
		w.Write(data)
		finish(b, w)
		b.SetBytes(int64(len(data)))
		p := make([]byte, 64<<10) // what pgx sends at a time
		for b.Loop() {
			r := NewReader(bytes.NewReader(wire.Bytes()))
			if n := drain(b, r, p); n != int64(len(data)) {
				b.Fatalf("read %d bytes of %d", n, len(data))
			}
		}
	})
}

// BenchmarkPipe takes 1 GB through an operating system's pipe, as between
// bf-dump and bf-load, and reports the CPU time of both ends. "bare" is the
// pipe without a stream.
func BenchmarkPipe(b *testing.B) {
	block, _ := copyRows(1000)
	const total = 1 << 30
	run := func(b *testing.B, send func(io.Writer), receive func(io.Reader)) {
		b.SetBytes(total)
		var cpu time.Duration
		for b.Loop() {
			pr, pw, err := os.Pipe()
			if err != nil {
				b.Fatal(err)
			}
			before := cpuTime()
			go func() { send(pw); pw.Close() }()
			receive(pr)
			cpu += cpuTime() - before
			pr.Close()
		}
		b.ReportMetric(cpu.Seconds()/float64(b.N)/(total/1e9), "cpu-s/GB")
	}
	p := make([]byte, 64<<10)
	b.Run("bare", func(b *testing.B) {
		run(b, func(w io.Writer) {
			for range total / len(block) {
				w.Write(block)
			}
		}, func(r io.Reader) {
			for {
				if _, err := r.Read(p); err != nil {
					return
				}
			}
		})
	})
	eachCodec(b, func(b *testing.B, c Compression) {
		run(b, func(out io.Writer) {
			w := begin(b, out, c)
			for range total / len(block) {
				w.Write(block)
			}
			finish(b, w)
		}, func(in io.Reader) { drain(b, NewReader(in), p) })
	})
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func begin(tb testing.TB, out io.Writer, c Compression) *Writer {
	w := NewWriter(out, c)
	if err := w.Begin(header(1, Rows)); err != nil {
		tb.Fatal(err)
	}
	return w
}

func finish(tb testing.TB, w *Writer) {
	if err := w.EndPart(1); err != nil {
		tb.Error(err)
	}
	if err := w.End(); err != nil {
		tb.Error(err)
	}
	if err := w.Close(false); err != nil {
		tb.Error(err)
	}
}

// drain reads the only part of a one-task stream to the stream's end.
func drain(tb testing.TB, r *Reader, p []byte) (n int64) {
	if _, err := r.Next(); err != nil {
		tb.Fatal(err)
	}
	if _, err := r.NextPart(); err != nil {
		tb.Fatal(err)
	}
	for {
		k, err := r.Read(p)
		n += int64(k)
		if err == io.EOF {
			break
		}
		if err != nil {
			tb.Fatal(err)
		}
	}
	if _, err := r.NextPart(); err != io.EOF {
		tb.Fatal(err)
	}
	if _, err := r.Next(); err != io.EOF {
		tb.Fatal(err)
	}
	return n
}
