package main

import (
	"maps"
	"math/rand"
	"net"
	"net/http"
	"sync"
	"time"
)

// stats is what came in since the last reset.
type stats struct {
	Requests      map[string]int `json:"requests"` // by S3's name of the operation; refused ones are among them
	Refused       map[string]int `json:"refused"`  // by operation: those that an injected fault answered
	Connections   int            `json:"connections"`
	BytesIn       int64          `json:"bytes_in"` // of objects and parts, as they arrive; aws-chunked's framing too
	BytesOut      int64          `json:"bytes_out"`
	PartsRepeated int            `json:"parts_repeated"` // parts that had arrived whole before, in any upload of the key
	PartsAtOnce   int            `json:"parts_at_once"`  // most parts that were arriving at one moment
}

// fault is what goes wrong on purpose: 503 SlowDown with a probability, and a pause before each answer.
type fault struct {
	Seconds     float64 `json:"seconds"` // for how long; 0 is until the next order
	Probability float64 `json:"probability"`
	LatencyS    float64 `json:"latency_s"`
	until       time.Time
}

// tally counts, and says what is to go wrong.
type tally struct {
	mutex sync.Mutex
	stats stats
	fault fault
	parts int // arriving now
}

func newTally() *tally {
	t := &tally{}
	t.reset()
	return t
}

func (t *tally) reset() {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	t.stats = stats{Requests: map[string]int{}, Refused: map[string]int{}}
}

func (t *tally) snapshot() stats {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	copied := t.stats
	copied.Requests, copied.Refused = maps.Clone(t.stats.Requests), maps.Clone(t.stats.Refused)
	return copied
}

func (t *tally) order(wanted fault) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	if wanted.Seconds > 0 {
		wanted.until = time.Now().Add(time.Duration(wanted.Seconds * float64(time.Second)))
	}
	t.fault = wanted
}

// request counts one, waits as ordered, and says whether it is to be refused.
func (t *tally) request(operation string) (refuse bool) {
	t.mutex.Lock()
	t.stats.Requests[operation]++
	now := t.fault
	if !now.until.IsZero() && time.Now().After(now.until) {
		now = fault{}
	}
	refuse = rand.Float64() < now.Probability
	if refuse {
		t.stats.Refused[operation]++
	}
	t.mutex.Unlock()
	time.Sleep(time.Duration(now.LatencyS * float64(time.Second)))
	return refuse
}

func (t *tally) in(bytes int)  { t.count(func(s *stats) { s.BytesIn += int64(bytes) }) }
func (t *tally) out(bytes int) { t.count(func(s *stats) { s.BytesOut += int64(bytes) }) }
func (t *tally) repeated()     { t.count(func(s *stats) { s.PartsRepeated++ }) }

// arriving counts parts under way: 1 when one begins, -1 when it is over.
func (t *tally) arriving(change int) {
	t.count(func(s *stats) {
		t.parts += change
		s.PartsAtOnce = max(s.PartsAtOnce, t.parts)
	})
}

func (t *tally) count(deed func(*stats)) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	deed(&t.stats)
}

// connection is http.Server's ConnState.
func (t *tally) connection(_ net.Conn, state http.ConnState) {
	if state == http.StateNew {
		t.count(func(s *stats) { s.Connections++ })
	}
}
