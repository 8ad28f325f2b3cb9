"""The one door to the Kubernetes API server: requests, mirrors of what is there, and a lease.

Never: meaning. What an EdgeDevice or a claim says is read in `config` and `controlplane`; objects travel as the API
server gives them.
"""
