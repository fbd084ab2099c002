package stage

import (
	"context"
	"errors"
	"time"

	"bf/lib/source"
	"bf/lib/stream"
	"bf/lib/tsdb"
)

// errEnough ends a sample.
var errEnough = errors.New("enough")

// nowhere counts what is written to it, up to a limit.
type nowhere struct{ bytes, limit int64 }

func (n *nowhere) Write(p []byte) (int, error) {
	if n.bytes += int64(len(p)); n.bytes >= n.limit {
		return 0, errEnough
	}
	return len(p), nil
}

// Sample dumps the plan to nowhere, in one lane, up to so many bytes.
func (p *Plan) Sample(ctx context.Context, src *tsdb.DB, limit int64) (bytes int64, took time.Duration, err error) {
	to := &nowhere{limit: limit}
	dumper := source.New(src, stream.NewWriter(to, stream.Compression{}), "")
	began := time.Now()
	for _, t := range p.Tasks {
		if _, err := dumper.Dump(ctx, t); errors.Is(err, errEnough) {
			break
		} else if err != nil {
			return 0, 0, err
		}
	}
	return to.bytes, time.Since(began), nil
}

// Network measures how fast data travels to the target, in bytes per second. The
// server counts the bytes and writes nothing.
func Network(ctx context.Context, dst *tsdb.DB) (float64, error) {
	data := make([]byte, 8<<20)
	var bytes int64
	began := time.Now()
	for range 4 {
		var n int64
		if err := dst.QueryRow(ctx, "select octet_length($1::bytea)", data).Scan(&n); err != nil {
			return 0, dst.Wrap(err, "measure the network")
		}
		bytes += n
	}
	return float64(bytes) / time.Since(began).Seconds(), nil
}
