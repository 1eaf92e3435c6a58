"""Models: registration, review, preferences, ownership."""

from __future__ import annotations

from collections.abc import Sequence

from zhiyi import eip712
from zhiyi.chain import Event, TxResult
from zhiyi.cid import cid_v0_from_digest, digest_from_cid
from zhiyi.errors import BadInput, IntegrityError, NotFound
from zhiyi.group import Group, reason_hash
from zhiyi.signers import sign
from zhiyi.types import (
    Model,
    ModelRecord,
    ModelStatus,
    ParentConsent,
    ParentProof,
    Preferences,
    Review,
    RoyaltyTerms,
    Split,
    to_address,
    to_bytes,
)


class Models(Group):
    """Model tokens (contract ModelNFT)."""

    def register(
        self,
        record: ModelRecord,
        metadata_cid: str,
        preferences: Preferences,
        collaborators: Sequence[Split] = (),
        parents: Sequence[ParentProof] = (),
        *,
        dry_run: bool = False,
    ) -> TxResult:
        """Mints the model token to the caller; `result.model_id` is its number.

        `record.royalty_hash` is left zero, the contract fills it in. Raises TxReverted, e.g. RootAlreadyRegistered.
        """
        if any(record.royalty_hash):
            raise BadInput(
                "leave record.royalty_hash zero: the contract fills it in from collaborators and parents"
            )
        return self._send(
            "ModelNFT",
            "register",
            record.as_tuple(),
            digest_from_cid(metadata_cid),
            preferences.pack(),
            [split.as_tuple() for split in collaborators],
            [proof.as_tuple() for proof in parents],
            dry_run=dry_run,
        )

    def get(self, model_id: int) -> Model:
        """A model as it stands now. Raises NotFound; IntegrityError when events and storage disagree."""
        found = self._events("ModelNFT", "ModelRegistered", {"modelId": model_id})
        if not found:
            raise NotFound(f"model {model_id} is not registered on chain {self._deployment.chain_id}")
        rotations = self._events("ModelNFT", "TraceKeyRotated", {"modelId": model_id})
        return self._model(found[0], rotations)

    def list(self, owner: str | None = None) -> tuple[Model, ...]:
        """All models in the order of registration, or those that `owner` owns now."""
        rotations: dict[int, list[Event]] = {}
        for event in self._events("ModelNFT", "TraceKeyRotated"):
            rotations.setdefault(event["modelId"], []).append(event)
        registered = self._events("ModelNFT", "ModelRegistered")
        models = (self._model(event, rotations.get(event["modelId"], [])) for event in registered)
        wanted = to_address(owner) if owner else None
        return tuple(model for model in models if wanted in (None, model.owner))

    def _model(self, registered: Event, rotations: Sequence[Event]) -> Model:
        model_id = registered["modelId"]
        record = ModelRecord.from_abi(registered["record"])
        royalties = RoyaltyTerms.from_abi(registered["royalties"])
        record = record.model_copy(update={"royalty_hash": royalties.hash()})
        if rotations:
            record = record.model_copy(update={"trace_key_commit": rotations[-1]["traceKeyCommit"]})
        if record.hash() != self._call("ModelNFT", "recordHash", model_id):
            raise IntegrityError(
                f"the events of model {model_id} do not hash to its record: use another RPC endpoint"
            )
        status = self.status(model_id)
        return Model(
            model_id=model_id,
            owner=status.owner,
            record=record,
            royalties=royalties,
            status=status,
            metadata_cid=cid_v0_from_digest(self._call("ModelNFT", "metadataDigest", model_id)),
            registered_block=registered.block_number,
            registered_tx=registered.tx_hash,
        )

    def status(self, model_id: int) -> ModelStatus:
        """Owner, review, preferences, freeze. Raises TxReverted NoSuchModel."""
        return ModelStatus.from_abi(self._call("ModelNFT", "statusOf", model_id))

    def of_root(self, weights_root: bytes) -> int:
        """The model registered with these weights. Raises NotFound."""
        found = int(self._call("ModelNFT", "modelOfRoot", to_bytes(weights_root, 32)))
        if not found:
            raise NotFound(f"no model has the weights root 0x{weights_root.hex()}")
        return found

    def platform_bps(self) -> int:
        """The platform's share of the gross, in 1/10000."""
        return int(self._call("ModelNFT", "platformBps"))

    def review(self, model_id: int, outcome: Review, reason: str = "", *, dry_run: bool = False) -> TxResult:
        """Registrar: approves or rejects, once; the chain keeps keccak256 of the reason's text."""
        if outcome == Review.PENDING:
            raise BadInput("review as APPROVED or REJECTED")
        return self._send("ModelNFT", "review", model_id, int(outcome), reason_hash(reason), dry_run=dry_run)

    def set_preferences(
        self, model_id: int, preferences: Preferences, metadata_cid: str, *, dry_run: bool = False
    ) -> TxResult:
        """Owner: new preference bits with the metadata that says the same."""
        digest = digest_from_cid(metadata_cid)
        return self._send("ModelNFT", "setPreferences", model_id, preferences.pack(), digest, dry_run=dry_run)

    def rotate_trace_key(self, model_id: int, trace_key_commit: bytes, *, dry_run: bool = False) -> TxResult:
        """Owner: commits a new trace key. Older copies stay traceable with the older kit."""
        record, commit = self.get(model_id).record, to_bytes(trace_key_commit, 32)
        return self._send("ModelNFT", "rotateTraceKey", record.as_tuple(), model_id, commit, dry_run=dry_run)

    def transfer(self, model_id: int, to: str, *, dry_run: bool = False) -> TxResult:
        """Owner: gives the model token away. Income not pulled goes with it, signed orders become void."""
        account = self._chain.account
        return self._send("ModelNFT", "transferFrom", account, to_address(to), model_id, dry_run=dry_run)

    def sign_consent(self, consent: ParentConsent) -> bytes:
        """Owner of a parent model: lets `consent.registrant` record it as a parent. 65 bytes."""
        return sign(self._chain.signer, self.consent_data(consent))

    def consent_data(self, consent: ParentConsent) -> eip712.TypedData:
        """What the parent's owner signs."""
        return eip712.parent_consent(
            consent, self._deployment.chain_id, self._deployment.contracts["ModelNFT"]
        )
