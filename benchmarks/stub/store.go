package main

import (
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"sort"
	"sync"
	"time"
)

// body is an object's bytes in the pieces they came in: a multipart object is its parts, never copied together.
type body [][]byte

func (b body) size() (total int64) {
	for _, piece := range b {
		total += int64(len(piece))
	}
	return total
}

// writeTo writes the bytes from `first` up to, not including, `end`.
func (b body) writeTo(w io.Writer, first, end int64) error {
	for _, piece := range b {
		size := int64(len(piece))
		if first < size && end > 0 {
			if _, err := w.Write(piece[max(first, 0):min(end, size)]); err != nil {
				return err
			}
		}
		first, end = first-size, end-size
	}
	return nil
}

// object is one version of one key; it never changes once it is in a bucket.
type object struct {
	body     body
	etag     string // without quotes
	modified time.Time
	headers  http.Header // Content-Type and x-amz-meta-*
}

type part struct {
	bytes []byte
	etag  string
}

type upload struct {
	key     string
	id      string
	begun   time.Time
	headers http.Header
	parts   map[int]part
}

// bucket is everything under one name. A bucket exists as soon as it is named.
type bucket struct {
	objects map[string]*object
	sorted  []string // keys in byte order, or nil when they have to be sorted again
	uploads map[string]*upload
	sent    map[string]bool // key and number of every part that ever arrived whole
}

func newBucket() *bucket {
	return &bucket{objects: map[string]*object{}, uploads: map[string]*upload{}, sent: map[string]bool{}}
}

// keys are all keys in byte order; the result is not changed by later writes.
func (b *bucket) keys() []string {
	if b.sorted == nil {
		b.sorted = make([]string, 0, len(b.objects))
		for key := range b.objects {
			b.sorted = append(b.sorted, key)
		}
		sort.Strings(b.sorted)
	}
	return b.sorted
}

func (b *bucket) put(key string, made *object) {
	if b.objects[key] == nil {
		b.sorted = nil
	}
	b.objects[key] = made
}

func (b *bucket) remove(key string) {
	delete(b.objects, key)
	b.sorted = nil
}

// complete makes an object of parts that were stored; the second result is S3's error code.
func (b *bucket) complete(id string, wanted []wantedPart) (*object, string) {
	up := b.uploads[id]
	if up == nil {
		return nil, "NoSuchUpload"
	}
	made := &object{headers: up.headers, modified: time.Now()}
	digests := md5.New()
	for i, want := range wanted {
		got, there := up.parts[want.PartNumber]
		switch {
		case !there || got.etag != unquoted(want.ETag):
			return nil, "InvalidPart"
		case i > 0 && want.PartNumber <= wanted[i-1].PartNumber:
			return nil, "InvalidPartOrder"
		case i < len(wanted)-1 && len(got.bytes) < 5<<20:
			return nil, "EntityTooSmall"
		}
		digest, _ := hex.DecodeString(got.etag)
		digests.Write(digest)
		made.body = append(made.body, got.bytes)
	}
	if len(wanted) == 0 {
		return nil, "MalformedXML"
	}
	made.etag = fmt.Sprintf("%x-%d", digests.Sum(nil), len(wanted))
	delete(b.uploads, id)
	b.put(up.key, made)
	return made, ""
}

// store is all buckets. `mutex` guards everything in them but the objects themselves.
type store struct {
	mutex   sync.Mutex
	buckets map[string]*bucket
	number  int // of the last upload
}

// in runs `deed` on a bucket, alone.
func (s *store) in(name string, deed func(*bucket)) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	found := s.buckets[name]
	if found == nil {
		found = newBucket()
		s.buckets[name] = found
	}
	deed(found)
}

func (s *store) get(name, key string) (found *object) {
	s.in(name, func(b *bucket) { found = b.objects[key] })
	return found
}

// begin opens a multipart upload.
func (s *store) begin(name, key string, headers http.Header) (id string) {
	s.in(name, func(b *bucket) {
		s.number++
		id = fmt.Sprintf("upload-%d", s.number)
		b.uploads[id] = &upload{key: key, id: id, begun: time.Now(), headers: headers, parts: map[int]part{}}
	})
	return id
}

// addPart keeps a part. It says whether the upload is known, and whether this part of this key had come before.
func (s *store) addPart(name, key, id string, number int, made part) (known, again bool) {
	s.in(name, func(b *bucket) {
		up := b.uploads[id]
		if up == nil || up.key != key {
			return
		}
		// Parts of a sparse file are all alike; one copy is enough to give them back.
		for _, other := range up.parts {
			if other.etag == made.etag && len(other.bytes) == len(made.bytes) {
				made.bytes = other.bytes
				break
			}
		}
		up.parts[number] = made
		name := fmt.Sprintf("%s\x00%d", key, number)
		known, again = true, b.sent[name]
		b.sent[name] = true
	})
	return known, again
}
