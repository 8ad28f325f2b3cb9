package main

import (
	"encoding/hex"
	"encoding/xml"
	"net/http"
	"net/url"
	"sort"
	"strconv"
	"strings"
)

type wantedPart struct {
	PartNumber int
	ETag       string
}

func (s *server) createUpload(w http.ResponseWriter, r *http.Request, name, key string, _ url.Values) error {
	return sendXML(w, struct {
		XMLName               xml.Name `xml:"InitiateMultipartUploadResult"`
		Bucket, Key, UploadId string
	}{Bucket: name, Key: key, UploadId: s.store.begin(name, key, kept(r.Header))})
}

func (s *server) putPart(w http.ResponseWriter, r *http.Request, name, key string, query url.Values) error {
	number, err := strconv.Atoi(query.Get("partNumber"))
	if err != nil || number < 1 || number > 10_000 {
		return refusal("InvalidArgument")
	}
	s.tally.arriving(1)
	bytes, digest, err := received(r, s.tally, s.verifySHA256)
	s.tally.arriving(-1)
	if err != nil {
		return err
	}
	made := part{bytes: bytes, etag: hex.EncodeToString(digest)}
	known, again := s.store.addPart(name, key, query.Get("uploadId"), number, made)
	if !known {
		return refusal("NoSuchUpload")
	}
	if again {
		s.tally.repeated()
	}
	w.Header().Set("ETag", quoted(made.etag))
	return nil
}

func (s *server) completeUpload(w http.ResponseWriter, r *http.Request, name, key string, query url.Values) error {
	var wanted struct{ Part []wantedPart }
	if err := s.readXML(r, &wanted); err != nil {
		return err
	}
	var made *object
	var problem error
	s.store.in(name, func(b *bucket) {
		if problem = unwanted(r, b.objects[key]); problem != nil {
			return
		}
		var code string
		if made, code = b.complete(query.Get("uploadId"), wanted.Part); code != "" {
			problem = refusal(code)
		}
	})
	if problem != nil {
		return problem
	}
	return sendXML(w, struct {
		XMLName           xml.Name `xml:"CompleteMultipartUploadResult"`
		Bucket, Key, ETag string
	}{Bucket: name, Key: key, ETag: quoted(made.etag)})
}

func (s *server) abortUpload(w http.ResponseWriter, _ *http.Request, name, _ string, query url.Values) (err error) {
	s.store.in(name, func(b *bucket) {
		if b.uploads[query.Get("uploadId")] == nil {
			err = refusal("NoSuchUpload")
		}
		delete(b.uploads, query.Get("uploadId"))
	})
	if err == nil {
		w.WriteHeader(http.StatusNoContent)
	}
	return err
}

func (s *server) listUploads(w http.ResponseWriter, _ *http.Request, name, _ string, query url.Values) error {
	asked := listingOf(query, "key-marker", "max-uploads")
	type listed struct{ Key, UploadId, Initiated string }
	answer := struct {
		XMLName            xml.Name `xml:"ListMultipartUploadsResult"`
		Bucket, Prefix     string
		EncodingType       string `xml:",omitempty"`
		MaxUploads         int
		IsTruncated        bool
		NextKeyMarker      string `xml:",omitempty"`
		NextUploadIdMarker string `xml:",omitempty"`
		Upload             []listed
	}{Bucket: name, Prefix: asked.name(asked.prefix), EncodingType: asked.encoding, MaxUploads: asked.most}
	var found []*upload
	marker := query.Get("upload-id-marker")
	s.store.in(name, func(b *bucket) {
		for _, up := range b.uploads {
			beyond := up.key > asked.after || up.key == asked.after && marker != "" && up.id > marker
			if beyond && strings.HasPrefix(up.key, asked.prefix) {
				found = append(found, up)
			}
		}
	})
	sort.Slice(found, func(i, j int) bool {
		return found[i].key < found[j].key || found[i].key == found[j].key && found[i].id < found[j].id
	})
	if len(found) > asked.most {
		found, answer.IsTruncated = found[:asked.most], true
		last := found[len(found)-1]
		answer.NextKeyMarker, answer.NextUploadIdMarker = asked.name(last.key), last.id
	}
	for _, up := range found {
		answer.Upload = append(answer.Upload, listed{asked.name(up.key), up.id, stamp(up.begun)})
	}
	return sendXML(w, answer)
}
