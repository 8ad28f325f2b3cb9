package main

import (
	"crypto/md5"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

// held is what the server holds under one key, as /_stub/objects says it.
type held struct {
	Size int64  `json:"size"`
	ETag string `json:"etag"`
	MD5  string `json:"md5"` // of the bytes, computed when asked for
}

// fill is an order for random objects: PREFIXnn/nnnnnn, a hundred to a directory.
type fill struct {
	Bucket string `json:"bucket"`
	Prefix string `json:"prefix"`
	Count  int    `json:"count"`
	Size   int    `json:"size"`
}

// admin is the levers: what came in, what is held, what goes wrong, and an empty bucket.
func (s *server) admin() http.Handler {
	levers := http.NewServeMux()
	levers.HandleFunc("GET /_stub/stats", func(w http.ResponseWriter, _ *http.Request) { sendJSON(w, s.tally.snapshot()) })
	levers.HandleFunc("GET /_stub/objects", func(w http.ResponseWriter, r *http.Request) {
		sendJSON(w, s.held(r.FormValue("bucket")))
	})
	levers.HandleFunc("POST /_stub/reset", func(http.ResponseWriter, *http.Request) { s.tally.reset() })
	levers.HandleFunc("POST /_stub/empty", func(_ http.ResponseWriter, r *http.Request) {
		s.store.mutex.Lock()
		defer s.store.mutex.Unlock()
		delete(s.store.buckets, r.FormValue("bucket"))
	})
	levers.HandleFunc("POST /_stub/fault", func(w http.ResponseWriter, r *http.Request) {
		if wanted, ok := order[fault](w, r); ok {
			s.tally.order(wanted)
		}
	})
	levers.HandleFunc("POST /_stub/fill", func(w http.ResponseWriter, r *http.Request) {
		if wanted, ok := order[fill](w, r); ok {
			s.fill(wanted)
		}
	})
	return levers
}

func (s *server) held(name string) map[string]held {
	objects := map[string]*object{}
	s.store.in(name, func(b *bucket) {
		for key, each := range b.objects {
			objects[key] = each
		}
	})
	answer := make(map[string]held, len(objects))
	for key, each := range objects {
		digest := md5.New()
		_ = each.body.writeTo(digest, 0, each.body.size())
		answer[key] = held{each.body.size(), each.etag, hex.EncodeToString(digest.Sum(nil))}
	}
	return answer
}

func (s *server) fill(wanted fill) {
	for number := range wanted.Count {
		bytes := make([]byte, wanted.Size)
		_, _ = rand.Read(bytes) // never fails on Linux
		digest := md5.Sum(bytes)
		made := &object{
			body:     body{bytes},
			etag:     hex.EncodeToString(digest[:]),
			modified: time.Now(),
			headers:  http.Header{"Content-Type": {"application/octet-stream"}},
		}
		key := fmt.Sprintf("%s%03d/%06d", wanted.Prefix, number/100, number)
		s.store.in(wanted.Bucket, func(b *bucket) { b.put(key, made) })
	}
}

// order reads what is wanted from a request's JSON, or refuses it.
func order[T any](w http.ResponseWriter, r *http.Request) (wanted T, ok bool) {
	reader := json.NewDecoder(r.Body)
	reader.DisallowUnknownFields()
	if err := reader.Decode(&wanted); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return wanted, false
	}
	return wanted, true
}

func sendJSON(w http.ResponseWriter, answer any) { _ = json.NewEncoder(w).Encode(answer) }
