package main

import (
	"flag"
	"fmt"
	"net"
	"os"
	"sync"
	"time"
)

const blockBytes = 64 << 10

// proxy forwards TCP connections late (half the round trip each way) and, where a rate is set, slowly.
func proxy(arguments []string) error {
	flags := flag.NewFlagSet("proxy", flag.ExitOnError)
	to := flags.String("to", "", "host:port to forward to")
	rtt := flags.Duration("rtt", 0, "round trip to add; half of it in each direction")
	rate := flags.Float64("rate", 0, "bytes a second in each direction, over all connections; 0 is no limit")
	_ = flags.Parse(arguments)
	listener, err := listen()
	if err != nil {
		return err
	}
	if err := announce(map[string]string{"listen": listener.Addr().String()}); err != nil {
		return err
	}
	up, down := &shaper{rate: *rate}, &shaper{rate: *rate}
	for {
		client, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() {
			server, err := net.Dial("tcp", *to)
			if err != nil {
				fmt.Fprintln(os.Stderr, "stub:", err)
				client.Close()
				return
			}
			// The kernel accepted this connection at once; over a real distance the client's first bytes would
			// have left one round trip later.
			opened := time.Now().Add(*rtt)
			var both sync.WaitGroup
			both.Add(2)
			go func() { defer both.Done(); carry(client, server, *rtt/2, opened, up) }()
			go func() { defer both.Done(); carry(server, client, *rtt/2, time.Time{}, down) }()
			both.Wait()
			client.Close()
			server.Close()
		}()
	}
}

type block struct {
	bytes []byte
	due   time.Time
}

// carry moves bytes from one side to the other, each block `delay` after it came. The end of the stream travels too.
func carry(from, to net.Conn, delay time.Duration, opened time.Time, limit *shaper) {
	depth := 1024 // 64 MiB: with no rate to keep, delay must not become a window
	if limit.rate > 0 {
		depth = 8
	}
	queue := make(chan block, depth)
	go func() {
		defer close(queue)
		for {
			bytes := make([]byte, blockBytes)
			n, err := from.Read(bytes)
			if n > 0 {
				came := time.Now()
				if came.Before(opened) {
					came = opened
				}
				queue <- block{bytes[:n], came.Add(delay)}
			}
			if err != nil {
				return
			}
		}
	}()
	for next := range queue {
		time.Sleep(time.Until(next.due))
		limit.wait(len(next.bytes))
		if _, err := to.Write(next.bytes); err != nil {
			from.Close() // ends the reader, whose queue is emptied below
			break
		}
	}
	for range queue {
	}
	if half, ok := to.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
}

// shaper spaces blocks so that no more than `rate` bytes a second pass, over all who share it.
type shaper struct {
	mutex sync.Mutex
	rate  float64
	free  time.Time
}

func (s *shaper) wait(size int) {
	if s.rate <= 0 {
		return
	}
	s.mutex.Lock()
	now := time.Now()
	if s.free.Before(now) {
		s.free = now
	}
	s.free = s.free.Add(time.Duration(float64(size) / s.rate * float64(time.Second)))
	until := s.free
	s.mutex.Unlock()
	time.Sleep(time.Until(until))
}
